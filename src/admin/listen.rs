//! The sockets of the admin server: TCP for reading, a unix socket also for changes. Bound before privileges are
//! given up; the socket's file is removed with the process.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, fchown, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::border::addr::ListenAddr;
use crate::config::{AdminSocket, User};
use crate::sys::socket::bind_unix;

/// Connections that wait for a place.
const BACKLOG: i32 = 1024;

/// Bytes of an answer that the kernel holds for a reader.
const SENT_AHEAD: usize = 128 << 10;

/// A bound admin address, not serving yet.
pub struct Bound {
    pub(super) listener: std::net::TcpListener,
    pub address: SocketAddr,
}

/// A bound socket, not serving yet.
pub struct BoundSocket {
    pub(super) listener: UnixListener,
    pub file: SocketFile,
}

/// Removed when dropped, with its folder if that was made for it.
pub struct SocketFile {
    pub path: PathBuf,
    folder: Option<PathBuf>,
}

/// `before`: the address that is still served, which may be another address for the same port.
pub fn bind(address: SocketAddr, before: Option<SocketAddr>) -> io::Result<Bound> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_address(true)?;
    if address.ip().is_unspecified() && address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    let overlaps = before.is_some_and(|before| {
        before.port() == address.port() && claimed(before).overlaps(&claimed(address))
    });
    socket.set_reuse_port(overlaps)?;
    socket.bind(&address.into())?;
    // So that another socket of ours can be bound beside it.
    socket.set_reuse_port(true)?;
    // A client that reads slowly but steadily must be seen to read: with a large buffer it would take very long until
    // there is room again.
    socket.set_send_buffer_size(SENT_AHEAD)?;
    socket.listen(BACKLOG)?;
    let listener: std::net::TcpListener = socket.into();
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

fn claimed(address: SocketAddr) -> ListenAddr {
    let is_dual_stack = address.is_ipv6() && address.ip().is_unspecified();
    if is_dual_stack { ListenAddr::DualStack(address.port()) } else { ListenAddr::Inet(address) }
}

/// Only for its owner: 0600, whatever the umask.
pub fn bind_socket(path: &Path) -> io::Result<BoundSocket> {
    // No client can connect before it listens, and then the mode is right.
    let socket = bind_unix(path, Permissions::from_mode(0o600))?;
    let file = SocketFile { path: path.to_owned(), folder: None };
    socket.listen(BACKLOG)?;
    Ok(BoundSocket { listener: socket.into(), file })
}

/// What the configuration asks for. `Ok(Err)`: no socket, and why, because `auto` does not require one.
pub fn bind_wanted(
    wanted: &AdminSocket,
) -> Result<Result<Option<BoundSocket>, String>, (PathBuf, io::Error)> {
    match wanted {
        AdminSocket::None => Ok(Ok(None)),
        AdminSocket::Path(path) => match bind_socket(path) {
            Ok(bound) => Ok(Ok(Some(bound))),
            Err(error) => Err((path.clone(), error)),
        },
        AdminSocket::Auto => Ok(bind_first(&places()).map(Some)),
    }
}

/// Folders in which maitred makes its own folder if necessary, and the mode of that folder.
fn places() -> Vec<(PathBuf, u32)> {
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    let of_user = of_user.map(|folder| (PathBuf::from(folder), 0o700));
    [(PathBuf::from("/run"), 0o755)].into_iter().chain(of_user).collect()
}

/// The default places of maitred's socket, the likeliest first.
pub fn usual_sockets() -> impl Iterator<Item = PathBuf> {
    places().into_iter().map(|(place, _)| socket_in(&place.join(FOLDER)))
}

/// In a folder of the system's or the user's.
const FOLDER: &str = "maitred";

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("admin.sock")
}

fn bind_first(places: &[(PathBuf, u32)]) -> Result<BoundSocket, String> {
    let mut why = Vec::new();
    for (place, mode) in places {
        let folder = place.join(FOLDER);
        let is_made = DirBuilder::new().mode(*mode).create(&folder).is_ok();
        let path = socket_in(&folder);
        match bind_socket(&path) {
            Ok(mut bound) => {
                bound.file.folder = is_made.then_some(folder);
                return Ok(bound);
            }
            Err(error) => why.push(format!("{}: {error}", path.display())),
        }
        if is_made {
            // Nothing is in it.
            let _ = std::fs::remove_dir(&folder);
        }
    }
    Err(why.join("; "))
}

impl Bound {
    /// The user that the process becomes: only sockets of one user share a port while a reload moves them.
    pub fn give_to(&self, user: &User) {
        // Without the capability (CAP_CHOWN) only such a reload is refused.
        let _ = fchown(&self.listener, Some(user.uid), Some(user.gid));
    }
}

impl SocketFile {
    /// The user that the process becomes, so that it can be removed.
    pub fn give_to(&self, user: &User) -> io::Result<()> {
        for path in self.folder.iter().chain([&self.path]) {
            lchown(path, Some(user.uid), Some(user.gid))?;
        }
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that cannot be removed is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_before_a_port_may_change_but_a_port_of_others_is_not_shared() {
        let all = bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let port = all.address.port();
        let wildcard = SocketAddr::from(([0, 0, 0, 0], port));
        assert_eq!(bind(wildcard, None).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind(wildcard, Some(all.address)).unwrap().address, wildcard);
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_place_that_there_is_gets_a_socket_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let places = [(dir.path().join("absent"), 0o755), (dir.path().to_owned(), 0o700)];
        let bound = bind_first(&places).unwrap();
        let path = dir.path().join("maitred/admin.sock");
        assert_eq!(bound.file.path, path);
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        // A socket that answers belongs to another process and is kept.
        let why = bind_first(&places).err().unwrap();
        assert!(why.contains("absent/maitred/admin.sock: No such file"), "{why}");
        assert!(why.contains("address in use"), "{why}");
        drop(bound);
        assert!(!path.parent().unwrap().exists(), "what was made is gone");
    }

    #[test]
    fn a_folder_that_was_there_stays_and_a_dead_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("maitred")).unwrap();
        let path = dir.path().join("maitred/admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        drop(bind_first(&[(dir.path().to_owned(), 0o700)]).unwrap());
        assert!(!path.exists() && path.parent().unwrap().exists());
    }
}
