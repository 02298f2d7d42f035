//! Whether content can be that of a `Release` file. Pure, and by form alone: signatures are for apt to check.

/// What content is by its form; a later one is worth more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ReleaseForm {
    /// No such file: a page, or nothing.
    Other,
    /// A paragraph of fields that lists no file.
    Fields,
    /// One that lists files with their digests.
    Lists,
}

/// The fields below which files are listed.
const LISTS: [&str; 4] = ["MD5Sum:", "SHA1:", "SHA256:", "SHA512:"];

/// The form of `content`, with or without a signature around it.
pub(crate) fn release_form(content: &[u8]) -> ReleaseForm {
    let text = String::from_utf8_lossy(content);
    let signed = text
        .trim_start()
        .strip_prefix("-----BEGIN PGP SIGNED MESSAGE-----");
    // The fields of the armour end with an empty line, which ends `Release` itself, too.
    let text = signed.map_or(&*text, |signed| {
        signed
            .split_once("\n\n")
            .or_else(|| signed.split_once("\r\n\r\n"))
            .map_or("", |(_armour, text)| text)
    });
    let mut lines = text.lines().skip_while(|line| line.trim().is_empty()).peekable();
    if !lines.peek().is_some_and(|line| is_field(line)) {
        return ReleaseForm::Other;
    }
    let mut is_in_list = false;
    for line in lines {
        let is_item = line.starts_with([' ', '\t']);
        if is_item && is_in_list && line.split_whitespace().count() == 3 {
            return ReleaseForm::Lists;
        }
        if !is_item {
            is_in_list = LISTS.contains(&line.trim_end());
        }
    }
    ReleaseForm::Fields
}

/// `Name: value`.
fn is_field(line: &str) -> bool {
    line.split_once(':').is_some_and(|(name, _)| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_a_page_is_no_release_whatever_it_says() {
        let item = format!(" {} 12 main/binary-amd64/Packages\n", "a".repeat(64));
        let plain = format!("Origin: Lab\nSHA256:\n{item}");
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{plain}-----BEGIN PGP SIGNATURE-----\n\nabc\n"
        );
        for (content, expected) in [
            (plain.as_str(), ReleaseForm::Lists),
            (signed.as_str(), ReleaseForm::Lists),
            (&plain.replace("SHA256:", "MD5Sum:"), ReleaseForm::Lists),
            (
                "Archive: stable\nComponent: main\nArchitecture: amd64\n",
                ReleaseForm::Fields,
            ),
            ("Origin: Lab\nSHA256:\n", ReleaseForm::Fields),
            ("<html>login to hotel wifi: SHA256:\n", ReleaseForm::Other),
            ("<!doctype html>\n<p>SHA256:\n a b c\n", ReleaseForm::Other),
            ("{\"login\": \"/\"}", ReleaseForm::Other),
            ("", ReleaseForm::Other),
            ("-----BEGIN PGP SIGNED MESSAGE-----\n", ReleaseForm::Other),
        ] {
            assert_eq!(release_form(content.as_bytes()), expected, "{content}");
        }
    }
}
