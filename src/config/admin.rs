//! `admin.socket` and `admin.token_file`: where changes may come from.

use std::fmt;
use std::path::PathBuf;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::choice::{is_off, off_for_none};
use super::fault::{Code, Fault, quote};
use super::value::text_value;

/// Where the socket of the admin server is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminSocket {
    /// In the folder of the system's sockets, else in the user's, else nowhere.
    #[default]
    Auto,
    None,
    Path(PathBuf),
}

text_value!(
    AdminSocket(AdminSocket),
    "`auto`, `none` or the path of a socket",
    json!({ "type": "string", "pattern": "^(auto|none|/.+)$" }),
    |text, at| match text {
        "auto" => Ok(AdminSocket::Auto),
        "none" => Ok(AdminSocket::None),
        _ if is_off(text) => Err(off_for_none(text, at)),
        _ if !text.starts_with('/') => {
            let message = format!("{} is not the path of a socket", quote(text));
            let path = text.trim_start_matches("unix:");
            let hint = match path.starts_with('/') {
                true => format!("write the path alone: {}", quote(path)),
                false => "write a path from the root, such as `/run/maitred/admin.sock`".to_owned(),
            };
            Err(Fault::error(Code::Malformed, at, message).hint(hint))
        }
        _ if text.len() > MAX_SOCKET_PATH || text.contains('\0') => {
            let message = "the kernel takes no such path of a socket";
            let hint = format!("write one of at most {MAX_SOCKET_PATH} bytes");
            Err(Fault::error(Code::OutOfRange, at, message).hint(hint))
        }
        _ => Ok(AdminSocket::Path(PathBuf::from(text))),
    },
    |it| match it {
        AdminSocket::Auto => "auto".into(),
        AdminSocket::None => "none".into(),
        AdminSocket::Path(path) => path.display().to_string().into(),
    },
);

/// Of `sun_path`, without the zero at its end.
const MAX_SOCKET_PATH: usize = 107;

/// Fewer letters could be tried one after the other.
const MIN_TOKEN: usize = 16;
const MAX_TOKEN: usize = 512;

/// Whoever knows it may change things over TCP. Only its digest is kept: nothing that shows a configuration can show it, and
/// comparing digests tells nobody how much of a guess was right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// The text of a token file; `Err`: why it holds none.
    pub fn read(text: &str) -> Result<Token, &'static str> {
        let text = text.trim();
        match text.len() {
            0 => Err("there is no token in this file"),
            length if length < MIN_TOKEN => Err("the token in this file is too short"),
            length if length > MAX_TOKEN => Err("the token in this file is too long"),
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err("this file holds something else than one token")
            }
            _ => Ok(Token::of(text)),
        }
    }

    fn of(text: &str) -> Token {
        Token(Sha256::digest(text.as_bytes()).into())
    }

    pub fn is(&self, guess: &str) -> bool {
        *self == Token::of(guess)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_of_some_length() {
        let token = Token::read(" 0123456789abcdef\n").unwrap();
        assert!(token.is("0123456789abcdef"));
        assert!(!token.is("0123456789abcdeF"));
        assert!(!token.is(""));
        assert!(Token::read("0123456789abcde").is_err());
        assert!(Token::read("0123456789abcdef 0123456789abcdef").is_err());
        assert!(Token::read(&"a".repeat(513)).is_err());
        assert!(Token::read("\n").is_err());
        assert_eq!(format!("{token:?}"), "Token");
    }
}
