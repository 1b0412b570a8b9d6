//! What a key does: to the view, or to maitred, and then only after a question. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::act::Act;
use super::model::{Mode, Model};

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Act(Act),
    Quit,
    Stay,
}

/// The most letters of a filter; no name or reason is longer.
const LONGEST: usize = 100;

impl Model {
    pub fn press(&mut self, key: KeyEvent) -> Step {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Step::Quit;
        }
        match &self.mode {
            Mode::List => self.press_in_list(key.code),
            Mode::Filter => {
                self.press_in_filter(key.code);
                Step::Stay
            }
            Mode::Confirm(act) => {
                let act = act.clone();
                self.mode = Mode::List;
                match key.code {
                    KeyCode::Char('y' | 'Y') => Step::Act(act),
                    _ => {
                        self.said = "nothing changed".to_owned();
                        Step::Stay
                    }
                }
            }
            Mode::Help => {
                self.mode = Mode::List;
                Step::Stay
            }
        }
    }

    fn press_in_list(&mut self, code: KeyCode) -> Step {
        const PAGE: isize = 10;
        self.said.clear();
        match code {
            KeyCode::Char('q') => return Step::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::Home => self.step(isize::MIN),
            KeyCode::End => self.step(isize::MAX),
            KeyCode::Char('p') | KeyCode::Tab => self.by_pool = !self.by_pool,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('d') => self.ask_to_set("drain"),
            KeyCode::Char('m') => self.ask_to_set("maintenance"),
            KeyCode::Char('u') => self.ask_to_set("up"),
            KeyCode::Char('x') => self.ask(|pool, backend| Act::Kill { pool, backend }),
            _ => {}
        }
        Step::Stay
    }

    fn press_in_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.mode = Mode::List,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::List;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.len() < LONGEST => self.filter.push(letter),
            _ => {}
        }
    }

    fn ask_to_set(&mut self, state: &'static str) {
        self.ask(|pool, backend| Act::Set { pool, backend, state });
    }

    fn ask(&mut self, act: impl FnOnce(String, String) -> Act) {
        match self.selected_row() {
            Some(row) if !row.backend.is_empty() => {
                let act = act(row.pool.clone(), row.backend.clone());
                // The row that the question is about stays selected whatever the next sample brings.
                self.selected = Some((row.pool.clone(), row.backend.clone()));
                self.mode = Mode::Confirm(act);
            }
            Some(_) => self.said = "choose a backend: p shows them".to_owned(),
            None => {}
        }
    }
}
