//! Finds the assignments of a shell script without running it.
//!
//! Flow: characters → words and separators → simple commands → [`Statement`]s. Known are comments, quotes, continued
//! lines, here-documents, `export`-like builtins, `unset`, and what does not reach the login shell: function bodies,
//! subshells, and assignments before a command (`http_proxy=… wget …`).
//!
//! Deliberately absent: conditions. An assignment inside `if` counts as made, because only running the script could
//! tell, and running an operator's profile from here could do anything.

use std::collections::BTreeMap;

/// What a script does to a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// The line, counted from 1.
    pub(super) line: usize,
    /// The variable.
    pub(super) name: String,
    /// Its new value, to be expanded; `None` for `unset`.
    pub(super) value: Option<Value>,
}

/// A value as written, before its variables are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Plain(String),
    Quoted(String),
    Variable { name: String, default: Option<String> },
}

impl Value {
    /// The value with every variable that `known` has. One that is not known stays as written: it is set elsewhere,
    /// and that something is set here matters more than what.
    pub(super) fn expand(&self, known: &BTreeMap<String, String>, empty: &[&str]) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Plain(part) | Piece::Quoted(part) => text.push_str(part),
                Piece::Variable { name, default } => {
                    match (known.get(name).filter(|value| !value.is_empty()), default) {
                        (Some(value), _) | (None, Some(value)) => text.push_str(value),
                        (None, None) if known.contains_key(name) || empty.contains(&name.as_str()) => {}
                        (None, None) => text.extend(["$", name.as_str()]),
                    }
                }
            }
        }
        text
    }
}

#[derive(Debug)]
enum Token {
    Word { line: usize, pieces: Vec<Piece> },
    End,
    Open,
    Close,
}

/// Words that only structure a script; what follows one is a command of its own.
const RESERVED: &[&str] = &[
    "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "in", "!",
    "{", "}", "time",
];

/// Builtins whose arguments may be assignments.
const DECLARING: &[&str] = &["export", "declare", "typeset", "readonly", "local"];

/// All assignments of `text`, in order.
pub(super) fn statements(text: &str) -> Vec<Statement> {
    let mut found = Vec::new();
    let mut command = Vec::new();
    let mut subshells = 0_usize;
    let mut tokens = Lexer::new(text).tokens().into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            Token::Word { line, pieces } => command.push((line, pieces)),
            Token::Open if !command.is_empty() && matches!(tokens.peek(), Some(Token::Close)) => {
                tokens.next();
                command.clear();
                skip_body(&mut tokens);
            }
            Token::Open | Token::Close | Token::End => {
                let mut finished = std::mem::take(&mut command);
                let is_function = finished
                    .first()
                    .is_some_and(|(_, pieces)| plain(pieces) == Some("function"));
                if is_function {
                    let opened = finished.iter().any(|(_, pieces)| plain(pieces) == Some("{"));
                    finished.clear();
                    skip_function(&mut tokens, opened);
                }
                if subshells == 0 {
                    evaluate(finished, &mut found);
                }
                match token {
                    Token::Open => subshells += 1,
                    // The `)` of a pattern in `case` opens nothing.
                    Token::Close => subshells = subshells.saturating_sub(1),
                    Token::Word { .. } | Token::End => {}
                }
            }
        }
    }
    evaluate(command, &mut found);
    found
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<Token>>;

/// Skips `{ … }` after `name()`.
fn skip_body(tokens: &mut Tokens) {
    skip_function(tokens, false);
}

/// Skips to the `}` that closes a function; `opened` when its `{` was read already.
fn skip_function(tokens: &mut Tokens, opened: bool) {
    let mut depth = usize::from(opened);
    for token in tokens.by_ref() {
        let Token::Word { pieces, .. } = token else {
            continue;
        };
        match plain(&pieces) {
            Some("{") => depth += 1,
            Some("}") => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return;
        }
    }
}

fn plain(pieces: &[Piece]) -> Option<&str> {
    match pieces {
        [Piece::Plain(text)] => Some(text),
        _ => None,
    }
}

/// The assignments of one simple command.
fn evaluate(words: Vec<(usize, Vec<Piece>)>, found: &mut Vec<Statement>) {
    let mut words = words
        .into_iter()
        .skip_while(|(_, pieces)| plain(pieces).is_some_and(|word| RESERVED.contains(&word)))
        .peekable();
    let mut leading = Vec::new();
    while let Some(statement) = words.peek().and_then(|(line, pieces)| assignment(*line, pieces)) {
        leading.push(statement);
        words.next();
    }
    match words.next() {
        None => found.extend(leading),
        // Assignments before a command hold for that command alone.
        Some((_, command)) => match plain(&command) {
            Some(builtin) if DECLARING.contains(&builtin) => {
                found.extend(words.filter_map(|(line, pieces)| assignment(line, &pieces)));
            }
            Some("unset") => found.extend(words.filter_map(|(line, pieces)| {
                let name = plain(&pieces).filter(|name| is_name(name))?.to_owned();
                Some(Statement {
                    line,
                    name,
                    value: None,
                })
            })),
            _ => {}
        },
    }
}

fn assignment(line: usize, pieces: &[Piece]) -> Option<Statement> {
    let Some((Piece::Plain(head), rest)) = pieces.split_first() else {
        return None;
    };
    let (name, start) = head.split_once('=').filter(|(name, _)| is_name(name))?;
    let mut value = vec![Piece::Plain(start.to_owned())];
    value.extend_from_slice(rest);
    Some(Statement {
        line,
        name: name.to_owned(),
        value: Some(Value(value)),
    })
}

fn is_name(text: &str) -> bool {
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
