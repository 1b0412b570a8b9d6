//! One thing that is wrong with a configuration: a stable code, a place, a message, and what to write
//! instead. Collected by every stage of the load; shown by `error`.

use super::tree::Span;

pub use crate::border::text::{list_words, plain, quote};

/// The enum and the list of all of them.
macro_rules! codes {
    ($($code:ident = $number:literal,)+) => {
        /// Stable: tests, editors and `explain` know faults by these. A number is never given a second meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($code = $number,)+
        }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$code),+];
        }
    };
}

codes! {
    Unreadable = 1,
    TooLarge = 2,
    Syntax = 3,
    DuplicateKey = 4,
    UnknownKey = 10,
    NotYet = 11,
    MissingKey = 12,
    WrongShape = 13,
    EmptyValue = 14,
    UnknownWord = 15,
    NotOneChoice = 16,
    NoUnit = 17,
    ZeroForNone = 18,
    OffForNone = 19,
    Malformed = 20,
    OutOfRange = 21,
    BadName = 22,
    BadAddress = 23,
    HostName = 24,
    UnsetVariable = 25,
    BadVariable = 26,
    UnknownVersion = 27,
    NotPrime = 28,
    BadPattern = 29,
    GivenTwice = 40,
    NameTwice = 41,
    BoundTwice = 42,
    UnknownPool = 43,
    BackendTwice = 44,
    SourceFamily = 45,
    NoPort = 46,
    OtherProtocol = 47,
    Circular = 48,
    UnknownAccount = 49,
    BadCertificate = 50,
    NotTogether = 54,
    NothingToDo = 60,
    WithoutEffect = 61,
    NotProbed = 62,
    Unverified = 63,
    Expired = 64,
    HarmfulProbe = 65,
    SlowProbe = 66,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

#[derive(Clone, Debug)]
pub struct Fault {
    pub code: Code,
    pub severity: Severity,
    pub message: String,
    pub hint: Option<String>,
    /// `None`: the fault is about a whole file, named in the message.
    pub at: Option<Span>,
    /// Another place that belongs to it, with what stands there.
    pub also: Option<Box<(Span, String)>>,
    /// Key path; filled in when the load ends.
    pub path: String,
}

/// More are counted, not kept: a generated file can be wrong on every line.
const MAX_KEPT: usize = 1_000;

#[derive(Debug, Default)]
pub struct Faults {
    list: Vec<Fault>,
    omitted: usize,
    errors: usize,
}

impl Code {
    pub fn id(self) -> String {
        format!("E{:04}", self as u16)
    }
}

/// A message or a hint, written or put together.
pub trait Text: Into<String> {}

impl<T: Into<String>> Text for T {}

impl Fault {
    /// `hint`: what to write instead; an empty one is none.
    pub fn error(code: Code, at: Span, message: impl Text, hint: impl Text) -> Self {
        Fault { at: Some(at), ..Fault::whole(code, message, hint) }
    }

    pub fn warning(code: Code, at: Span, message: impl Text, hint: impl Text) -> Self {
        Fault { severity: Severity::Warning, ..Fault::error(code, at, message, hint) }
    }

    /// About a whole file, which the message names.
    pub fn whole(code: Code, message: impl Text, hint: impl Text) -> Self {
        Fault {
            code,
            severity: Severity::Error,
            message: message.into(),
            hint: Some(hint.into()).filter(|hint| !hint.is_empty()),
            at: None,
            also: None,
            path: String::new(),
        }
    }

    /// `None`: that other place is not there.
    pub fn also(mut self, span: impl Into<Option<Span>>, label: impl Text) -> Self {
        self.also = span.into().map(|span| Box::new((span, label.into())));
        self
    }
}

impl Faults {
    pub fn push(&mut self, fault: Fault) {
        self.errors += usize::from(fault.severity == Severity::Error);
        if self.list.len() < MAX_KEPT {
            self.list.push(fault);
        } else {
            self.omitted += 1;
        }
    }

    /// Reports what leaves nothing to go on with.
    pub fn refuse<T>(&mut self, fault: Fault) -> Option<T> {
        self.push(fault);
        None
    }

    pub fn error(&mut self, code: Code, at: Span, message: impl Text, hint: impl Text) {
        self.push(Fault::error(code, at, message, hint));
    }

    pub fn warning(&mut self, code: Code, at: Span, message: impl Text, hint: impl Text) {
        self.push(Fault::warning(code, at, message, hint));
    }

    pub fn extend(&mut self, faults: impl IntoIterator<Item = Fault>) {
        faults.into_iter().for_each(|fault| self.push(fault));
    }

    /// Adds to the hints of what was reported since `before` about the node `id`.
    pub fn widen_hints(&mut self, before: usize, id: u32, also: &str) {
        for fault in self.list.iter_mut().skip(before) {
            let here = fault.at.is_some_and(|span| span.id == id);
            if here
                && matches!(fault.code, Code::Malformed | Code::WrongShape)
                && let Some(hint) = &mut fault.hint
            {
                hint.push_str(also);
            }
        }
    }

    /// Notes that so many more were not even collected.
    pub fn omit(&mut self, count: usize) {
        self.omitted += count;
    }

    /// From `before` on they are no reason to refuse anything.
    pub fn soften(&mut self, before: usize) {
        for fault in self.list.iter_mut().skip(before) {
            if fault.severity == Severity::Error {
                fault.severity = Severity::Warning;
                self.errors -= 1;
            }
        }
    }

    pub fn count(&self) -> usize {
        self.list.len()
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// In the order of the files, and how many were not kept.
    pub fn into_sorted(mut self) -> (Vec<Fault>, usize) {
        self.list.sort_by_key(|fault| fault.at.map(|span| (span.source, span.start)));
        (self.list, self.omitted)
    }
}
