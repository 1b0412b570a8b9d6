//! Where log lines go: whole, or not at all, as far as that is possible. Another process that shares our output may
//! have made it non-blocking (pipes and terminals have one set of flags for all), so maitred waits while it is full,
//! but not for long.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write};

/// How long to wait for the reader of a full output before lines are dropped.
const PATIENCE: Duration = Duration::from_millis(200);

pub(super) struct Sink<F> {
    output: F,
    /// A line was truncated: the next one begins on a line of its own.
    is_torn: bool,
    /// The last wait was in vain: no line waits again until one is written.
    is_stuck: bool,
}

impl<F: AsFd> Sink<F> {
    pub fn new(output: F) -> Sink<F> {
        Sink { output, is_torn: false, is_stuck: false }
    }

    /// Returns whether the whole line is written.
    pub fn line(&mut self, line: &[u8]) -> bool {
        if self.is_torn {
            match self.write(b"\n") {
                1 => self.is_torn = false,
                _ => return false,
            }
        }
        let written = self.write(line);
        self.is_torn = (1..line.len()).contains(&written);
        written == line.len()
    }

    /// Returns how many bytes are written.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        let mut since = Instant::now();
        while written < bytes.len() {
            match write(&self.output, &bytes[written..]) {
                Ok(count) => {
                    written += count;
                    since = Instant::now();
                    self.is_stuck = false;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !self.is_stuck => {
                    self.is_stuck = !self.wait(PATIENCE.saturating_sub(since.elapsed()));
                }
                // There is no other place to report this.
                Err(_) => break,
            }
        }
        written
    }

    /// Until it accepts more; false if it does not in time.
    fn wait(&self, patience: Duration) -> bool {
        let mut outputs = [PollFd::new(&self.output, PollFlags::OUT)];
        let patience = Timespec::try_from(patience).ok();
        // Interrupted: try again.
        patience.is_some_and(|it| {
            it.tv_sec + it.tv_nsec > 0 && !matches!(poll(&mut outputs, Some(&it)), Ok(0))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

    use super::*;

    #[test]
    fn what_a_full_disk_refuses_is_not_written() {
        let mut sink = Sink::new(File::options().write(true).open("/dev/full").unwrap());
        assert!(!sink.line(b"one\n") && !sink.line(b"two\n"));
    }

    #[test]
    fn each_line_is_written_whole_to_a_pipe_that_does_not_block_or_is_not_written() {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        fcntl_setpipe_size(&writer, 4096).unwrap();
        let mut sink = Sink::new(writer);
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        let written = (0..100).filter(|_| sink.line(&line)).count();
        assert_eq!(written, 40);
        let mut read = vec![0; 8192];
        let count = File::from(reader.try_clone().unwrap()).read(&mut read).unwrap();
        assert_eq!(count, 4000);
        // A long one is truncated; what follows is a line again.
        assert!(!sink.line(&[b'y'; 6000]));
        let torn = File::from(reader.try_clone().unwrap()).read(&mut read).unwrap();
        assert!(torn > 0 && read[..torn].iter().all(|byte| *byte == b'y'));
        assert!(sink.line(b"next\n"));
        let count = File::from(reader).read(&mut read).unwrap();
        assert_eq!(&read[..count], b"\nnext\n");
    }

    #[test]
    fn a_reader_that_comes_in_time_gets_every_line() {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::empty()).unwrap();
        let reading = std::thread::spawn(move || {
            let mut read = Vec::new();
            File::from(reader).read_to_end(&mut read).unwrap();
            read.len()
        });
        let mut sink = Sink::new(writer);
        let written = (0..20_000).filter(|_| sink.line(&[b'z'; 50])).count();
        drop(sink);
        assert_eq!(reading.join().unwrap(), 50 * written);
        assert_eq!(written, 20_000);
    }
}
