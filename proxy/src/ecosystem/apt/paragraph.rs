//! Paragraphs of `Name: value` lines, as `Packages`, `Release` and dpkg's `status` have them ([deb822(5)]).
//!
//! [deb822(5)]: https://manpages.debian.org/bookworm/dpkg-dev/deb822.5.en.html

use std::borrow::Cow;

/// One paragraph.
#[derive(Debug, Default)]
pub(crate) struct Paragraph<'t> {
    fields: Vec<(&'t str, Cow<'t, str>)>,
}

impl Paragraph<'_> {
    /// The value of the field `name`, whatever its case; lines below it are joined.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }

    /// The same, empty where there is none.
    pub(crate) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    /// Whether the field `name` says yes.
    pub(crate) fn says_yes(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("yes"))
    }
}

/// The paragraphs of `text`, in order.
pub(crate) fn paragraphs(text: &str) -> impl Iterator<Item = Paragraph<'_>> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut read = Paragraph::default();
        for line in lines.by_ref() {
            if line.trim().is_empty() {
                if read.fields.is_empty() {
                    continue;
                }
                return Some(read);
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = read.fields.last_mut() {
                    let value = value.to_mut();
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                read.fields.push((name, Cow::Borrowed(value.trim())));
            }
        }
        (!read.fields.is_empty()).then_some(read)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_end_with_an_empty_line_and_fields_go_on_below() {
        let text = "\n\nPackage: a\nDepends: b,\n c\nEssential: YES\n \t\nodd\npackage: d\n";
        let read: Vec<_> = paragraphs(text).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].get("Depends"), Some("b, c"));
        assert!(read[0].says_yes("essential") && !read[0].says_yes("Package"));
        assert_eq!(
            (read[1].text("Package"), read[1].text("x")),
            ("d".into(), String::new())
        );
    }
}
