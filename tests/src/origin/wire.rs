//! One connection of the origin: requests in, answers out, byte by byte under control.

use std::{
    io,
    ops::Range,
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{MissedTickBehavior, interval},
};

use super::{Fault, Framing, Recorded, Resource, State};

/// The unit of writing: small beside the bodies of the tests, so that positions are exact to little.
const PIECE: usize = 16 * 1024;

/// Between two pieces of a throttled body.
const BEAT: Duration = Duration::from_millis(20);

/// Answers requests until the client goes or a fault ends the connection.
pub(super) async fn serve(stream: TcpStream, state: &State) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await? {
        state.log.send_modify(|log| log.push(request.clone()));
        let (resource, fault) = next(state, &request);
        if answer(stream.get_mut(), state, &request, (&resource, fault)).await? == Then::Close {
            break;
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    KeepOpen,
    Close,
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Recorded>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let Some((first, fields)) = lines.split_first() else {
        return Ok(None);
    };
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let headers: Vec<(String, String)> = fields
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let request = Recorded {
        method,
        path,
        headers,
    };
    let length = request
        .header("content-length")
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).await?;
    Ok(Some(request))
}

/// The resource that `request` is about, and the fault that is next in its queue.
fn next(state: &State, request: &Recorded) -> (Resource, Fault) {
    let mut resources = state.resources.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = request.header("accept").unwrap_or_default();
    let first = wanted.split([',', ';']).next().unwrap_or_default();
    let form = super::form(&request.path, first);
    let key = if resources.contains_key(&form) {
        &form
    } else {
        &request.path
    };
    let Some(resource) = resources.get_mut(key) else {
        return (Resource::new("nothing here\n").status(404), Fault::None);
    };
    let fault = resource
        .faults
        .pop_front()
        .unwrap_or_else(|| resource.afterwards.clone());
    (resource.clone(), fault)
}

async fn answer(
    stream: &mut TcpStream,
    state: &State,
    request: &Recorded,
    (resource, fault): (&Resource, Fault),
) -> io::Result<Then> {
    let other;
    let is_stranger =
        resource.wanted.is_some() && request.header("authorization") != resource.wanted.as_deref();
    let (resource, part) = if is_stranger {
        other = Resource::new("who are you?\n")
            .status(401)
            .header("www-authenticate", "Basic realm=\"lab\"");
        (&other, Part::Whole)
    } else if let Fault::Status(status) = fault {
        other = Resource::new(format!("status {status}\n")).status(status);
        (&other, Part::Whole)
    } else {
        (resource, part(request, resource))
    };
    if let Fault::HoldHead(gate) = &fault {
        gate.passed().await;
    }
    write_head(stream, resource, &part, &fault).await?;
    if request.method == "HEAD" || matches!(part, Part::NotModified) {
        return Ok(Then::KeepOpen);
    }
    let range = match part {
        Part::Range(range) => range,
        Part::Whole | Part::NotModified => 0..resource.body.len(),
    };
    let bytes = &resource.body[range];
    match write_body(stream, state, bytes, (resource, &fault)).await? {
        Then::Close => Ok(Then::Close),
        Then::KeepOpen => match resource.framing {
            Framing::Length | Framing::Chunked => Ok(Then::KeepOpen),
            Framing::UntilClose | Framing::Claimed(_) => Ok(Then::Close),
        },
    }
}

/// Which part of the representation the request gets.
enum Part {
    Whole,
    Range(Range<usize>),
    NotModified,
}

fn part(request: &Recorded, resource: &Resource) -> Part {
    let same = |field: &str, own: &str| {
        let (theirs, own) = (request.header(field)?, resource.header_value(own)?);
        Some(
            theirs
                .split(',')
                .any(|one| one.trim().trim_start_matches("W/") == own.trim_start_matches("W/"))
                || theirs == own,
        )
    };
    // RFC 9110 §13.2.2: the entity tag decides where there is one.
    let unchanged = match request.header("if-none-match") {
        Some(_) => same("if-none-match", "etag"),
        None => same("if-modified-since", "last-modified"),
    };
    if unchanged == Some(true) {
        return Part::NotModified;
    }
    let same_representation = request.header("if-range").is_none_or(|validator| {
        [
            resource.header_value("etag"),
            resource.header_value("last-modified"),
        ]
        .contains(&Some(validator))
    });
    match request.header("range") {
        Some(value) if resource.ranges && same_representation => {
            range(value, resource.body.len()).map_or(Part::Whole, Part::Range)
        }
        _ => Part::Whole,
    }
}

/// `bytes=a-b` and `bytes=a-`; that is all the proxy sends.
fn range(value: &str, length: usize) -> Option<Range<usize>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let end = if last.is_empty() {
        length
    } else {
        last.parse::<usize>().ok()?.checked_add(1)?.min(length)
    };
    (first < end).then_some(first..end)
}

async fn write_head(
    stream: &mut TcpStream,
    resource: &Resource,
    part: &Part,
    fault: &Fault,
) -> io::Result<()> {
    let head = head_lines(resource, part).join("\r\n") + "\r\n\r\n";
    if !matches!(fault, Fault::DripHead) {
        return stream.write_all(head.as_bytes()).await;
    }
    let mut beat = interval(Duration::from_millis(5));
    for byte in head.bytes() {
        beat.tick().await;
        stream.write_all(&[byte]).await?;
    }
    Ok(())
}

fn head_lines(resource: &Resource, part: &Part) -> Vec<String> {
    let status = match part {
        Part::Whole => resource.status,
        Part::Range(_) => 206,
        Part::NotModified => 304,
    };
    let mut lines = vec![format!("HTTP/1.1 {status} X")];
    lines.extend(
        resource
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}")),
    );
    if resource.ranges {
        lines.push("accept-ranges: bytes".to_owned());
    }
    let length = match part {
        Part::Range(range) => {
            let (first, last, all) = (range.start, range.end - 1, resource.body.len());
            lines.push(format!("content-range: bytes {first}-{last}/{all}"));
            range.len()
        }
        Part::Whole => resource.body.len(),
        Part::NotModified => return lines,
    };
    lines.push(match resource.framing {
        Framing::Length => format!("content-length: {length}"),
        Framing::Chunked => "transfer-encoding: chunked".to_owned(),
        Framing::UntilClose => "connection: close".to_owned(),
        Framing::Claimed(claimed) => format!("content-length: {claimed}"),
    });
    lines
}

/// Sends the content, the fault included; chunked coding is ended only where nothing went wrong.
async fn write_body(
    stream: &mut TcpStream,
    state: &State,
    body: &[u8],
    (resource, fault): (&Resource, &Fault),
) -> io::Result<Then> {
    let chunked = resource.framing == Framing::Chunked;
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let piece = resource
        .bytes_per_second
        .map_or(PIECE, |rate| usize::try_from(rate / 50).unwrap_or(PIECE).max(1));
    let mut sent = 0;
    while sent < body.len() {
        let stop = fault_position(fault)
            .filter(|position| *position >= sent)
            .unwrap_or(body.len());
        if stop == sent && strike(stream, fault).await? == Then::Close {
            return Ok(Then::Close);
        }
        if resource.bytes_per_second.is_some() {
            beat.tick().await;
        }
        let stop = if stop == sent { body.len() } else { stop };
        let end = (sent + piece).min(stop).min(body.len());
        write_piece(stream, &body[sent..end], chunked).await?;
        state.body_bytes.fetch_add((end - sent) as u64, Ordering::SeqCst);
        sent = end;
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    Ok(Then::KeepOpen)
}

fn fault_position(fault: &Fault) -> Option<usize> {
    match fault {
        Fault::HoldBody(at, _) | Fault::Cut(at) | Fault::Reset(at) => usize::try_from(*at).ok(),
        Fault::None | Fault::HoldHead(_) | Fault::Status(_) | Fault::DripHead => None,
    }
}

/// What happens at the fault's position.
async fn strike(stream: &mut TcpStream, fault: &Fault) -> io::Result<Then> {
    match fault {
        Fault::HoldBody(_, gate) => {
            gate.passed().await;
            Ok(Then::KeepOpen)
        }
        Fault::Reset(_) => {
            stream.set_zero_linger()?;
            Ok(Then::Close)
        }
        Fault::Cut(_) => {
            stream.shutdown().await?;
            Ok(Then::Close)
        }
        Fault::None | Fault::HoldHead(_) | Fault::Status(_) | Fault::DripHead => Ok(Then::KeepOpen),
    }
}

async fn write_piece(stream: &mut TcpStream, piece: &[u8], chunked: bool) -> io::Result<()> {
    if chunked {
        stream
            .write_all(format!("{:x}\r\n", piece.len()).as_bytes())
            .await?;
    }
    stream.write_all(piece).await?;
    if chunked {
        stream.write_all(b"\r\n").await?;
    }
    Ok(())
}
