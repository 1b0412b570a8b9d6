//! The token of the admin server: what a file of it holds, and what a request that carries it proves.

use std::fmt;

use sha2::{Digest, Sha256};

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
