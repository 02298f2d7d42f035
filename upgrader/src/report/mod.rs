//! What a person or a program reads of a run: lines for people on stderr, JSON events on stdout.
//!
//! Only this folder writes to the terminal. Data goes to stdout, everything else to stderr.

pub mod customizations;
pub mod human;
pub mod plan;
pub mod terminal;

use crate::run::event::Event;

/// Who reads the events of a run.
#[derive(Debug)]
pub enum Output {
    /// A person: lines on stderr, with a bar for downloads when it is a terminal.
    Human(human::Human),
    /// A program: one JSON object a line on stdout.
    Json,
    /// Nobody here; the event stream's file has them.
    Silent,
}

impl Output {
    /// The output for a person, or for a program when `json` is set.
    pub fn new(json: bool) -> Self {
        if json {
            Self::Json
        } else {
            Self::Human(human::Human::new())
        }
    }

    /// Shows one event.
    pub fn show(&self, event: &Event) {
        match self {
            Self::Human(human) => human.show(event),
            Self::Json => terminal::json(event),
            Self::Silent => {}
        }
    }
}
