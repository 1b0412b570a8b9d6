//! The report of a load that found faults: text with carets for people, JSON for machines.
//! Faults are made elsewhere (`fault`); here they are only shown.

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use super::fault::{Fault, Severity};
use super::secret::{self, line_around};
use super::tree::Span;

/// One text of configuration and what to call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// Everything wrong with a configuration, in the order of the files.
#[derive(Clone, Debug)]
pub struct Report {
    pub sources: Vec<Source>,
    pub faults: Vec<Fault>,
    /// Faults beyond those kept.
    pub omitted: usize,
}

/// Beyond this many, the rest is only counted: nobody reads on, and the terminal's buffer is finite.
const MAX_SHOWN: usize = 100;

impl Report {
    /// Ends with a newline; faults are set apart by an empty line.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for fault in self.faults.iter().take(MAX_SHOWN) {
            text.push_str(&self.render_fault(&renderer, fault));
            text.push_str("\n\n");
        }
        text.pop();
        let more = self.faults.len().saturating_sub(MAX_SHOWN) + self.omitted;
        if more > 0 {
            text.push_str(&format!("\nand {more} more\n"));
        }
        text
    }

    /// An array of `{code, severity, file, line, column, path, message, hint}`.
    pub fn to_json(&self) -> Value {
        self.faults.iter().map(|fault| self.fault_to_json(fault)).collect()
    }

    fn render_fault(&self, renderer: &Renderer, fault: &Fault) -> String {
        let level = match fault.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group =
            level.primary_title(&fault.message).id(fault.code.id()).elements(Vec::<Origin>::new());
        if let Some(span) = fault.at {
            group = match self.holds_secret(span) {
                true => group.element(self.origin(span)),
                false => group.element(self.snippet(span, AnnotationKind::Primary, None)),
            };
        }
        if let Some((span, label)) = fault.also.as_deref() {
            group = match self.holds_secret(*span) {
                true => group.element(self.origin(*span)),
                false => group.element(self.snippet(*span, AnnotationKind::Context, Some(label))),
            };
        }
        if !fault.path.is_empty() {
            group = group.element(Level::NOTE.with_name("at").message(&fault.path));
        }
        if let Some(hint) = &fault.hint {
            group = group.element(Level::HELP.with_name("hint").message(hint));
        }
        renderer.render(&[group])
    }

    /// Where it is, without a word of what stands there.
    fn origin(&self, span: Span) -> Origin<'_> {
        let (line, column) = (span.line as usize, span.column as usize);
        Origin::path(self.sources[span.source()].name.as_str()).line(line).char_column(column)
    }

    fn holds_secret(&self, span: Span) -> bool {
        secret::stands_in(&self.sources[span.source()].text, span.bytes().start)
    }

    /// Only the line itself is handed over: the renderer looks at every line of what it is given.
    fn snippet<'a>(
        &'a self,
        span: Span,
        kind: AnnotationKind,
        label: Option<&'a String>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let source = &self.sources[span.source()];
        let (line_start, line) = line_around(&source.text, span.bytes().start);
        // The library may point into the middle of a letter, and the renderer would not survive it.
        let start =
            line.floor_char_boundary(span.bytes().start.saturating_sub(line_start).min(line.len()));
        let end = line.ceil_char_boundary(
            span.bytes().end.saturating_sub(line_start).clamp(start, line.len()),
        );
        let mut annotation = kind.span(start..end);
        if let Some(label) = label {
            annotation = annotation.label(label.as_str());
        }
        Snippet::source(line)
            .line_start(span.line as usize)
            .path(source.name.as_str())
            .annotation(annotation)
    }

    fn fault_to_json(&self, fault: &Fault) -> Value {
        let place = fault
            .at
            .map(|span| (self.sources[span.source()].name.as_str(), span.line, span.column));
        json!({
            "code": fault.code.id(),
            "severity": match fault.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            "file": place.map(|(file, _, _)| file),
            "line": place.map(|(_, line, _)| line),
            "column": place.map(|(_, _, column)| column),
            "path": fault.path,
            "message": fault.message,
            "hint": fault.hint,
        })
    }
}
