//! `admin.socket`: where changes may come from.

use std::path::PathBuf;

use serde_json::json;

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
    [json!({ "type": "string", "pattern": "^(auto|none|/.+)$" })],
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
            Err(Fault::error(Code::Malformed, at, message, hint))
        }
        _ if text.len() > MAX_SOCKET_PATH || text.contains('\0') => {
            let message = "the kernel takes no such path of a socket";
            let hint = format!("write one of at most {MAX_SOCKET_PATH} bytes");
            Err(Fault::error(Code::OutOfRange, at, message, hint))
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
