//! Standard output: buffered, on time, and quiet when nobody reads it any more.

use std::cell::RefCell;
use std::io::{self, BufWriter, Read, Write};
use std::rc::Rc;

/// Standard output, shared with the [`Prompt`] that reads.
#[derive(Clone)]
pub(super) struct Output {
    out: Rc<RefCell<BufWriter<io::Stdout>>>,
}

impl Output {
    pub(super) fn stdout() -> Output {
        Output { out: Rc::new(RefCell::new(BufWriter::with_capacity(1 << 16, io::stdout()))) }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.borrow_mut().flush()
    }
}

/// Input before whose reading the output is flushed: who waits for packets sees what is known of those before.
pub(super) struct Prompt<R> {
    pub(super) input: R,
    pub(super) output: Output,
}

impl<R: Read> Read for Prompt<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        // An error that matters meets the next line that is written.
        let _ = self.output.flush();
        self.input.read(bytes)
    }
}
