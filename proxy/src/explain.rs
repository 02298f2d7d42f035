//! Errors for people: what failed, why, and then what to do.

use std::error::Error;

use kato_shared::chain::Chain;

/// What failed, why, and then what to do: hints that stand in the middle of a chain of causes go to its end.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> String {
    let chain = Chain(error).to_string();
    let mut texts = Vec::new();
    let mut hints = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if let Some((said, hint)) = text.split_once("\nhint: ") {
            texts.push((text.clone(), said.to_owned()));
            hints.push(format!("\nhint: {hint}"));
        }
        next = error.source();
    }
    let said = texts
        .iter()
        .fold(chain, |chain, (whole, said)| chain.replacen(whole, said, 1));
    said + &hints.concat()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::StartError;

    #[test]
    fn the_hint_comes_after_every_cause() {
        let error = StartError::Listen {
            listener: "data",
            flag: "listen",
            address: SocketAddr::from(([127, 0, 0, 1], 80)),
            source: std::io::ErrorKind::AddrInUse.into(),
        };
        assert_eq!(
            explain(&error),
            "the data address 127.0.0.1:80 cannot be listened on: address in use\n\
             hint: stop what uses it, or choose another with --listen"
        );
    }
}
