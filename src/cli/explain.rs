//! `maitred explain`: cause and cure of an error code or a close reason, from the documentation itself.

use std::process::ExitCode;

use clap::Args;

use crate::border::nearest::nearest;
use crate::config::Report;
use crate::config::fault::Severity;

/// Explain an error code (E0042) or a close reason (no_backend): cause and cure
#[derive(Args, Debug)]
pub struct Explain {
    /// The code or reason, as in a message or in the log; without one, all are listed
    code: Option<String>,
}

const ERRORS: &str = include_str!("../../docs/errors.md");
const REASONS: &str = include_str!("../../docs/close-reasons.md");

/// One section of the documents.
pub struct Section {
    /// `E0042`, `no_backend`.
    pub code: &'static str,
    pub title: &'static str,
    pub text: &'static str,
}

/// Says, below a report, where to read more.
pub fn offer(report: &Report) {
    let first = report.faults.iter().find(|fault| fault.severity == Severity::Error);
    if let Some(fault) = first {
        eprintln!("\nmore about it: maitred explain {}", fault.code.id());
    }
}

/// All of them, in the order of the documents.
pub fn sections() -> impl Iterator<Item = Section> {
    let documents = [ERRORS, REASONS];
    documents.into_iter().flat_map(|document| document.split("\n## ").skip(1)).map(|section| {
        let (head, text) = section.split_once('\n').unwrap_or((section, ""));
        let (code, title) = head.split_once(": ").unwrap_or((head, ""));
        Section { code, title, text: text.trim() }
    })
}

impl Explain {
    pub fn run(&self) -> ExitCode {
        let Some(code) = &self.code else {
            let lines = sections()
                .map(|it| format!("{:20} {}", it.code, it.title).trim_end().to_owned() + "\n");
            super::output::print(&lines.collect::<String>());
            return ExitCode::SUCCESS;
        };
        match sections().find(|section| section.code.eq_ignore_ascii_case(code)) {
            Some(Section { code, title, text }) => {
                let colon = if title.is_empty() { "" } else { ": " };
                super::output::print(&format!(
                    "{code}{colon}{title}\n\n{}\n",
                    text.replace("**", "")
                ));
                ExitCode::SUCCESS
            }
            None => {
                let hint = nearest(code, sections().map(|section| section.code));
                let hint = hint.map_or_else(String::new, |it| format!("; did you mean `{it}`?"));
                eprintln!(
                    "error[E0134]: there is no code or close reason `{code}`{hint}; `maitred explain` lists all"
                );
                ExitCode::from(2)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::border::record::CloseReason;
    use crate::config::fault::Code;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_and_every_reason_has_a_section_with_a_cure_and_no_section_is_of_nothing() {
        let found: Vec<Section> = sections().collect();
        let faults = Code::ALL.iter().map(|code| code.id());
        let reasons = CloseReason::ALL.iter().map(|reason| reason.as_str().to_owned());
        let of_commands = COMMANDS.iter().map(|code| (*code).to_owned());
        let expected: BTreeSet<String> = faults.chain(reasons).chain(of_commands).collect();
        let codes: BTreeSet<String> = found.iter().map(|it| it.code.to_owned()).collect();
        assert_eq!(codes, expected);
        assert_eq!(codes.len(), found.len(), "each once");
        for section in found {
            assert!(section.text.contains("**Do:**"), "{}", section.code);
        }
    }

    /// The codes with which commands end.
    const COMMANDS: [&str; 21] = [
        "E0101", "E0102", "E0103", "E0104", "E0105", "E0110", "E0120", "E0121", "E0122", "E0123",
        "E0124", "E0125", "E0126", "E0127", "E0128", "E0130", "E0131", "E0132", "E0133", "E0134",
        "E0135",
    ];
}
