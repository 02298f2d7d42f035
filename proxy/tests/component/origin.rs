//! A scripted origin: answers each request as the test says, records what was asked, and can wait, break and lie.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub head: String,
    /// Which of the origin's connections it came over, in the order in which they were made.
    pub connection: usize,
}

impl Asked {
    /// The value of a field, if it was sent.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What to do after a request.
#[derive(Debug, Clone)]
pub enum Step {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Wait until the test gives a permit.
    Wait(Arc<Semaphore>),
    /// Close the connection at once.
    Break,
}

/// A response in steps.
pub fn reply(status: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<Step> {
    let length = body.len().to_string();
    let head = head(status, &[fields, &[("Content-Length", length.as_str())]].concat());
    vec![Step::Send([head.as_bytes(), b"\r\n", body].concat())]
}

/// Status line and fields, without the empty line.
pub fn head(status: &str, fields: &[(&str, &str)]) -> String {
    let mut lines = vec![format!("HTTP/1.1 {status}")];
    lines.extend(fields.iter().map(|(name, value)| format!("{name}: {value}")));
    lines.push(String::new());
    lines.join("\r\n")
}

type Script = dyn Fn(&Asked) -> Vec<Step> + Send + Sync;

/// A running origin; it stops when dropped.
pub struct Origin {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl Origin {
    /// Answers with `script`.
    pub async fn start(script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let mut tasks = JoinSet::new();
        let record = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for nth in 0.. {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                connections.spawn(serve((stream, nth), Arc::clone(&script), Arc::clone(&record)));
            }
        });
        Self {
            address,
            asked,
            _tasks: tasks,
        }
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests came for `path`.
    pub fn count(&self, path: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path == path).count()
    }
}

async fn serve((mut stream, nth): (TcpStream, usize), script: Arc<Script>, record: Arc<Mutex<Vec<Asked>>>) {
    let mut buffer = Vec::new();
    loop {
        let Some(asked) = read_request((&mut stream, nth), &mut buffer).await else {
            return;
        };
        let steps = script(&asked);
        record.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Step::Wait(gate) => gate.acquire().await.unwrap().forget(),
                Step::Break => return,
            }
        }
    }
}

async fn read_request((stream, connection): (&mut TcpStream, usize), buffer: &mut Vec<u8>) -> Option<Asked> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut words = head.split(' ');
            let asked = Asked {
                method: words.next()?.to_owned(),
                path: words.next()?.to_owned(),
                head: head.clone(),
                connection,
            };
            let length: usize = asked
                .field("content-length")
                .map_or(0, |text| text.parse().unwrap());
            while buffer.len() < end + 4 + length {
                if stream.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
            buffer.drain(..end + 4 + length);
            return Some(asked);
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
