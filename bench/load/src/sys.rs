//! The only unsafe code: many datagrams in one system call, each with its segment size. Not a socket type: whoever
//! calls brings the descriptor. Used by the client and by the server.
//!
//! rustix and socket2 have neither recvmmsg nor control messages of the UDP level.

#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, c_void, iovec, mmsghdr, sockaddr_storage, socklen_t};

/// A UDP datagram is never longer; with UDP_GRO a shorter buffer would lose what it cannot hold.
pub const LONGEST: usize = 64 * 1024;

/// Room for one control message that holds a number.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// Buffers of so many datagrams, and the headers that point to them. The headers hold pointers into the other
/// boxes, which are never moved, grown or replaced while the batch lives.
pub struct Batch {
    buffers: Box<[u8]>,
    names: Box<[sockaddr_storage]>,
    controls: Box<[Control]>,
    vectors: Box<[iovec]>,
    headers: Box<[mmsghdr]>,
}

/// One datagram of a batch, or several of equal length (the last may be shorter) that the kernel put together.
pub struct Received<'a> {
    pub bytes: &'a [u8],
    /// Length of each part; that of the whole if it is one datagram.
    pub segment: usize,
    pub is_cut: bool,
}

impl Batch {
    pub fn new(count: usize) -> Batch {
        // SAFETY: a plain C struct, for which zeroes are a valid value.
        let name = unsafe { zeroed::<sockaddr_storage>() };
        // SAFETY: as above; its pointers are null.
        let header = unsafe { zeroed::<mmsghdr>() };
        let vector = iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let mut batch = Batch {
            buffers: vec![0; count * LONGEST].into_boxed_slice(),
            names: vec![name; count].into_boxed_slice(),
            controls: vec![Control([0; 64]); count].into_boxed_slice(),
            vectors: vec![vector; count].into_boxed_slice(),
            headers: vec![header; count].into_boxed_slice(),
        };
        for (index, buffer) in batch.buffers.chunks_exact_mut(LONGEST).enumerate() {
            batch.vectors[index].iov_base = buffer.as_mut_ptr().cast();
            let header = &mut batch.headers[index].msg_hdr;
            header.msg_iov = &raw mut batch.vectors[index];
            header.msg_iovlen = 1;
        }
        batch
    }

    pub fn count(&self) -> usize {
        self.headers.len()
    }

    /// What is to be sent as number `index`.
    pub fn place(&mut self, index: usize, length: usize) -> &mut [u8] {
        self.vectors[index].iov_len = length;
        &mut self.buffers[index * LONGEST..][..length]
    }

    /// Sends the first `count` over a connected socket; how many the kernel took.
    pub fn send(&mut self, socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        for header in &mut self.headers[..count] {
            header.msg_hdr.msg_name = ptr::null_mut();
            header.msg_hdr.msg_namelen = 0;
            header.msg_hdr.msg_controllen = 0;
        }
        self.submit(socket, 0, count)
    }

    /// What has arrived, without waiting.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        let count = count.min(self.headers.len());
        for index in 0..count {
            self.vectors[index].iov_len = LONGEST;
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            header.msg_control = (&raw mut self.controls[index]).cast();
            header.msg_controllen = size_of::<Control>();
            header.msg_flags = 0;
        }
        let headers = self.headers[..count].as_mut_ptr();
        let (socket, length) = (socket.as_raw_fd(), count as u32);
        let (flags, no_timeout) = (libc::MSG_DONTWAIT, ptr::null_mut());
        // SAFETY: `headers` is the start of at least `count` headers, each of which points to a name, a control
        // buffer and a vector of this batch with the lengths just set; the batch is borrowed mutably.
        let taken = unsafe { libc::recvmmsg(socket, headers, length, flags, no_timeout) };
        usize::try_from(taken).map_err(|_| io::Error::last_os_error())
    }

    /// Number `index` of those just received.
    pub fn received(&self, index: usize) -> Received<'_> {
        let header = &self.headers[index];
        let bytes = &self.buffers[index * LONGEST..][..header.msg_len as usize];
        let segment = self.segment(index).unwrap_or(bytes.len());
        let is_cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        Received { bytes, segment, is_cut }
    }

    /// The segment size that came with number `index`: UDP_GRO says it only where it put several together.
    fn segment(&self, index: usize) -> Option<usize> {
        let header = &self.headers[index].msg_hdr;
        // SAFETY: the kernel filled the control buffer of this header and set its length.
        let message = unsafe { libc::CMSG_FIRSTHDR(header) };
        // SAFETY: CMSG_FIRSTHDR returns null or a header that lies wholly inside of the control buffer, which is
        // aligned for one.
        let message_header = unsafe { message.as_ref() }?;
        if message_header.cmsg_level != libc::SOL_UDP || message_header.cmsg_type != libc::UDP_GRO {
            return None;
        }
        // SAFETY: UDP_GRO carries an int; CMSG_DATA points to it.
        let data = unsafe { libc::CMSG_DATA(message) }.cast::<c_int>();
        // SAFETY: see above; read_unaligned asks for no alignment.
        let size = unsafe { data.read_unaligned() };
        usize::try_from(size).ok()
    }

    /// Sends the first `count` of those just received back to where they came from, in the shape they came in; how
    /// many the kernel refused.
    pub fn answer(&mut self, socket: BorrowedFd<'_>, count: usize) -> usize {
        for index in 0..count {
            let (whole, segment) =
                (self.headers[index].msg_len as usize, self.segment(index).unwrap_or(0));
            self.vectors[index].iov_len = whole;
            self.headers[index].msg_hdr.msg_controllen = 0;
            if segment > 0 && segment < whole {
                self.ask_for_segments(index, segment as u16);
            }
        }
        let (mut done, mut refused) = (0, 0);
        while done < count {
            match self.submit(socket, done, count - done) {
                Ok(taken) => done += taken,
                // The kernel has no room for this one: the client will miss it.
                Err(_) => {
                    done += 1;
                    refused += 1;
                }
            }
        }
        refused
    }

    fn ask_for_segments(&mut self, index: usize, segment: u16) {
        let header = &mut self.headers[index].msg_hdr;
        header.msg_control = (&raw mut self.controls[index]).cast();
        // SAFETY: a computation on numbers.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(2) } as usize;
        // SAFETY: the control buffer is 64 bytes, aligned for a header, and longer than one with two bytes.
        let message = unsafe { libc::CMSG_FIRSTHDR(header) };
        // SAFETY: not null, for msg_controllen has room for a header.
        let message_header = unsafe { &mut *message };
        message_header.cmsg_level = libc::SOL_UDP;
        message_header.cmsg_type = libc::UDP_SEGMENT;
        // SAFETY: a computation on numbers.
        message_header.cmsg_len = unsafe { libc::CMSG_LEN(2) } as usize;
        // SAFETY: the data of this header, which has room for two bytes.
        let data = unsafe { libc::CMSG_DATA(message) }.cast::<u16>();
        // SAFETY: see above; write_unaligned asks for no alignment.
        unsafe { data.write_unaligned(segment) };
    }

    fn submit(&mut self, socket: BorrowedFd<'_>, from: usize, count: usize) -> io::Result<usize> {
        let headers = self.headers[from..from + count].as_mut_ptr();
        let (socket, length) = (socket.as_raw_fd(), count as u32);
        // SAFETY: `headers` is the start of `count` headers, each of which points to a vector of this batch and to
        // a name and control buffer of it or to none.
        let taken = unsafe { libc::sendmmsg(socket, headers, length, libc::MSG_DONTWAIT) };
        usize::try_from(taken).map_err(|_| io::Error::last_os_error())
    }
}

/// Several datagrams that belong together arrive as one.
pub fn put_together(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// What is sent goes out as datagrams of this length.
pub fn take_apart(socket: BorrowedFd<'_>, segment: usize) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, segment as c_int)
}

/// Room for what has arrived and was not read; beyond the system's limit where that is allowed.
pub fn make_room(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = bytes as c_int;
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

fn set(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as socklen_t;
    let value: *const c_int = &raw const value;
    // SAFETY: `value` points to an int that outlives the call, and `length` is its size.
    let outcome = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, value.cast::<c_void>(), length)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// This thread runs only while no other on its processor wants to.
pub fn give_way() -> io::Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: `none` outlives the call; 0 is the calling thread.
    let outcome = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
