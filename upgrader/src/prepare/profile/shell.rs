//! Finds the assignments of a shell script without running it.
//!
//! Flow: characters → words and separators → simple commands → [`Statement`]s. Known are comments, quotes, continued
//! lines, here-documents, `export`-like builtins, `unset`, and what does not reach the login shell: function bodies,
//! subshells, and assignments before a command (`http_proxy=… wget …`).
//!
//! Deliberately absent: conditions. An assignment inside `if` counts as made, because only running the script could
//! tell, and running an operator's profile from here could do anything.

use std::collections::BTreeMap;

use super::lexer::{self, Piece, Token, is_name};

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
    let mut tokens = lexer::tokens(text).into_iter().peekable();
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
