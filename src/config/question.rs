//! What probes that log in need: who, the secret, how far behind a server may be, and a question.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::fault::{Code, Fault, quote};
use super::scalar::{DAY, Size, Time};
use super::value::text_value;

/// A text that no log and no answer shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

/// Far more than any server takes.
pub const MOST_OF_A_SECRET: usize = 1024;

impl Secret {
    /// One line, without its end.
    pub fn read(text: &str) -> Result<Secret, &'static str> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        match text {
            "" => Err("there is no password"),
            _ if text.len() > MOST_OF_A_SECRET => Err("the password is longer than 1024 bytes"),
            _ if text.contains(['\n', '\r', '\0']) => Err("a password is one line"),
            _ => Ok(Secret(text.into())),
        }
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

text_value!(
    /// A password.
    struct SecretText(Secret),
    "a password",
    [json!({ "type": "string", "minLength": 1, "maxLength": MOST_OF_A_SECRET })],
    |text, at| Secret::read(text).map_err(|message| {
        let hint = "write the password, or name the file that holds it: `password_file: FILE`";
        Fault::error(Code::Malformed, at, message, hint)
    }),
    // Hidden by all that show it.
    |it| it.reveal().into(),
);

text_value!(
    /// A user or a database.
    struct AccountText(String),
    "a name such as `maitred`",
    [json!({ "type": "string", "pattern": "^[^\\u0000-\\u001f]{1,256}$" })],
    |text, at| {
        if !text.is_empty() && text.len() <= 256 && !text.contains(|c: char| c.is_ascii_control()) {
            return Ok(text.to_owned());
        }
        let message = "this is not the name of a user or a database";
        Err(Fault::error(Code::Malformed, at, message, "write a name such as `maitred`"))
    },
    |it| it.as_str().into(),
);

text_value!(
    /// A question in SQL.
    struct QueryText(String),
    "a question in SQL such as `select 1`",
    [json!({ "type": "string", "minLength": 1, "maxLength": 4096 })],
    |text, at| {
        if !text.trim().is_empty() && text.len() <= 4096 && !text.contains('\0') {
            return Ok(text.to_owned());
        }
        let message = "this is not a question that a server could be asked";
        let hint = "write at most 4096 bytes of SQL, such as `select 1`";
        Err(Fault::error(Code::Malformed, at, message, hint))
    },
    |it| it.as_str().into(),
);

/// How far behind a replica may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxLag {
    Bytes(u64),
    Time(Duration),
}

type Bytes = Size<1, { 1 << 50 }>;
type Lasting = Time<1, DAY>;

text_value!(
    /// In bytes or in time.
    struct Lag(MaxLag),
    "a size such as `16MiB`, or a time such as `10s`",
    Bytes::forms().into_iter().chain(Lasting::forms()),
    |text, at| {
        use crate::border::quantities::{Wrong, size, time};
        match (size(text), time(text)) {
            (Ok(_) | Err(Wrong::TooLarge), _) => Bytes::read(text, at).map(MaxLag::Bytes),
            (_, Ok(_) | Err(Wrong::TooLarge)) => Lasting::read(text, at).map(MaxLag::Time),
            (Err(Wrong::NoUnit), _) => {
                let message = format!("{} has no unit", quote(text));
                let hint = "write a size such as `16MiB`, or a time such as `10s`";
                Err(Fault::error(Code::NoUnit, at, message, hint))
            }
            _ => {
                let message = format!("{} is neither a size nor a time", quote(text));
                let hint = "write a size such as `16MiB`, or a time such as `10s`";
                Err(Fault::error(Code::Malformed, at, message, hint))
            }
        }
    },
    |it| match it {
        MaxLag::Bytes(bytes) => crate::border::quantities::show_size(*bytes).into(),
        MaxLag::Time(time) => crate::border::quantities::show_time(*time).into(),
    },
);
