//! The words of a shell script: quotes, comments, continued lines, here-documents and variables are understood here.
//!
//! Deliberately absent: expansion (the values are known later) and structure (see [`super::shell`]).

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Without quotes.
    Plain(String),
    /// In quotes, or escaped, or the text of a command substitution.
    Quoted(String),
    /// `$name` or `${name:-default}`.
    Variable { name: String, default: Option<String> },
}

/// What a script is made of.
#[derive(Debug)]
pub(super) enum Token {
    /// A word with the line that it begins on.
    Word { line: usize, pieces: Vec<Piece> },
    /// The end of a simple command.
    End,
    /// `(`
    Open,
    /// `)`
    Close,
}

/// All tokens of `text`.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    Lexer::new(text).tokens()
}

/// Whether `text` can name a variable.
pub(super) fn is_name(text: &str) -> bool {
    let starts = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    starts && text.chars().all(is_name_char)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Characters to tokens.
struct Lexer<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    line: usize,
    tokens: Vec<Token>,
    word: Vec<Piece>,
    word_line: usize,
    /// End marks of here-documents that begin after this line, and whether leading tabs are removed.
    documents: Vec<(String, bool)>,
}

impl<'t> Lexer<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            rest: text.chars().peekable(),
            line: 1,
            tokens: Vec::new(),
            word: Vec::new(),
            word_line: 1,
            documents: Vec::new(),
        }
    }

    fn tokens(mut self) -> Vec<Token> {
        while let Some(next) = self.next() {
            match next {
                '#' if self.word.is_empty() => self.comment(),
                '\n' => {
                    self.end(Token::End);
                    self.here_documents();
                }
                ';' | '&' | '|' => self.end(Token::End),
                '(' => self.end(Token::Open),
                ')' => self.end(Token::Close),
                '<' => self.less_than(),
                '>' => self.end_word(),
                '\'' => {
                    let text = self.until('\'');
                    self.piece(Piece::Quoted(text));
                }
                '"' => self.double_quoted(),
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(escaped) => self.piece(Piece::Quoted(escaped.into())),
                },
                '$' => self.dollar(),
                '`' => {
                    let text = self.until('`');
                    self.piece(Piece::Quoted(format!("`{text}`")));
                }
                space if space.is_whitespace() => self.end_word(),
                other => self.plain(other),
            }
        }
        self.end(Token::End);
        self.tokens
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        if self.word.is_empty() {
            self.word_line = self.line;
        }
        if next == '\n' {
            self.line += 1;
        }
        Some(next)
    }

    fn until(&mut self, end: char) -> String {
        let mut text = String::new();
        while let Some(next) = self.next().filter(|next| *next != end) {
            text.push(next);
        }
        text
    }

    fn comment(&mut self) {
        while self.rest.peek().is_some_and(|next| *next != '\n') {
            self.next();
        }
    }

    fn piece(&mut self, piece: Piece) {
        self.word.push(piece);
    }

    fn plain(&mut self, next: char) {
        if let Some(Piece::Plain(text)) = self.word.last_mut() {
            text.push(next);
        } else {
            self.piece(Piece::Plain(next.into()));
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            let pieces = std::mem::take(&mut self.word);
            self.tokens.push(Token::Word {
                line: self.word_line,
                pieces,
            });
        }
    }

    fn end(&mut self, token: Token) {
        self.end_word();
        self.tokens.push(token);
    }

    fn double_quoted(&mut self) {
        let mut text = String::new();
        while let Some(next) = self.next().filter(|next| *next != '"') {
            match next {
                '\\' => match self.next() {
                    Some(escaped @ ('"' | '\\' | '$' | '`')) => text.push(escaped),
                    Some('\n') | None => {}
                    Some(other) => text.extend(['\\', other]),
                },
                '$' => {
                    self.piece(Piece::Quoted(std::mem::take(&mut text)));
                    self.dollar();
                }
                other => text.push(other),
            }
        }
        self.piece(Piece::Quoted(text));
    }

    /// `$name`, `${name}`, `${name:-default}`, `$(command)`; everything else keeps its dollar.
    fn dollar(&mut self) {
        match self.rest.peek() {
            Some('{') => {
                self.next();
                let inside = self.until('}');
                let (name, default) = match inside.split_once(":-").or_else(|| inside.split_once('-')) {
                    Some((name, default)) => (name, Some(default.to_owned())),
                    None => (inside.as_str(), None),
                };
                let piece = if is_name(name) {
                    Piece::Variable {
                        name: name.to_owned(),
                        default,
                    }
                } else {
                    Piece::Quoted(format!("${{{inside}}}"))
                };
                self.piece(piece);
            }
            Some('(') => {
                let command = self.substitution();
                self.piece(Piece::Quoted(format!("${command}")));
            }
            Some(next) if is_name_char(*next) => {
                let mut name = String::new();
                while let Some(next) = self.rest.next_if(|next| is_name_char(*next)) {
                    name.push(next);
                }
                self.piece(Piece::Variable { name, default: None });
            }
            _ => self.piece(Piece::Quoted("$".into())),
        }
    }

    /// The balanced parentheses of `$(…)`.
    fn substitution(&mut self) -> String {
        let (mut text, mut depth) = (String::new(), 0_usize);
        while let Some(next) = self.next() {
            text.push(next);
            match next {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        text
    }

    /// `<` ends a word; `<<` announces a here-document, `<<<` does not.
    fn less_than(&mut self) {
        self.end_word();
        if self.rest.next_if_eq(&'<').is_none() || self.rest.next_if_eq(&'<').is_some() {
            return;
        }
        let tabs_removed = self.rest.next_if_eq(&'-').is_some();
        while self.rest.next_if(|next| matches!(next, ' ' | '\t')).is_some() {}
        let mut mark = String::new();
        while let Some(next) = self
            .rest
            .next_if(|next| !next.is_whitespace() && !";&|()<>".contains(*next))
        {
            if !matches!(next, '\'' | '"' | '\\') {
                mark.push(next);
            }
        }
        self.documents.push((mark, tabs_removed));
    }

    fn here_documents(&mut self) {
        for (mark, tabs_removed) in std::mem::take(&mut self.documents) {
            while self.rest.peek().is_some() {
                let line = self.until('\n');
                let line = if tabs_removed {
                    line.trim_start_matches('\t')
                } else {
                    &line
                };
                if line == mark {
                    break;
                }
            }
        }
    }
}
