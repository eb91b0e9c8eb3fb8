//! What saves time in processes that live for a millisecond.
//!
//! - Memory is taken from a piece that the program has from its start, and not given back. The C
//!   library's allocator asks the kernel for each of its pieces, and gives them back at once: for a
//!   plugin that is a tenth of its life.
//! - The standard library's preparations for `main` are left out but for what such a program needs:
//!   another tenth.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Octets. What a plugin uses up; only pages that are touched take memory.
const PIECE: usize = 256 * 1024;

/// The allocator, to be a program's `#[global_allocator]`. When its piece is used up, it goes on
/// with the system's.
pub struct ShortLivedAllocator {
    piece: UnsafeCell<[u8; PIECE]>,
    used: AtomicUsize,
}

impl ShortLivedAllocator {
    /// With an unused piece.
    pub const fn new() -> Self {
        ShortLivedAllocator { piece: UnsafeCell::new([0; PIECE]), used: AtomicUsize::new(0) }
    }

    /// Where a block lies in the piece; `None`: it is the system's.
    fn position(&self, block: *const u8) -> Option<usize> {
        let position = block.addr().wrapping_sub(self.piece.get().addr());
        (position < PIECE).then_some(position)
    }

    /// Takes a block from the piece; `None`: no room.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let base = self.piece.get().cast::<u8>();
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let start = (base.addr() + used).checked_next_multiple_of(layout.align())?;
            let start = start - base.addr();
            let end = start.checked_add(layout.size()).filter(|end| *end <= PIECE)?;
            match self.resize(used, end) {
                Ok(()) => return Some(base.wrapping_add(start)),
                Err(now) => used = now,
            }
        }
    }

    fn resize(&self, from: usize, to: usize) -> Result<(), usize> {
        let swapped = self.used.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        swapped.map(drop)
    }
}

impl Default for ShortLivedAllocator {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: the piece is only handed out in blocks that do not overlap: `used` is the end of the last
// one, and is moved by one thread at a time (compare_exchange). Who owns a block alone touches it.
#[allow(unsafe_code)]
unsafe impl Sync for ShortLivedAllocator {}

// SAFETY: a block of the piece is inside it, aligned as asked, and overlaps no other that is in use:
// it begins at or behind `used`, which then becomes its end, and `used` goes back only to the start
// of a block that is given back and is the last. All other blocks are the system allocator's, and
// go back to it. Nothing here unwinds.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for ShortLivedAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        self.take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.position(block) {
            // Not the last one: it stays until the end.
            Some(start) => drop(self.resize(start + layout.size(), start)),
            // SAFETY: not from the piece, so it is from the system.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(start) = self.position(block) else {
            // SAFETY: not from the piece, so it is from the system.
            return unsafe { System.realloc(block, layout, size) };
        };
        let end = start.checked_add(size).filter(|end| *end <= PIECE);
        if end.is_some_and(|end| self.resize(start + layout.size(), end).is_ok()) {
            return block;
        }
        // SAFETY: the caller promises that the new size is not 0 and, rounded up to the alignment,
        // does not overflow. The new block overlaps no block in use, and both are as long as what
        // is copied.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, size.min(layout.size()));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

/// Makes a function that returns a [`std::process::ExitCode`] what the program begins with, in place
/// of `fn main`; the program has `#![no_main]`.
///
/// What the standard library would do before is left out: a message on stack overflow, and the
/// program's arguments where the C library does not tell them by itself. What is needed is done by
/// [`begin_short_lived`].
#[macro_export]
macro_rules! short_lived_main {
    ($main:path) => {
        // SAFETY: the C library calls `main` once, with this signature, and with `#![no_main]` there
        // is no other of this name. What it is given is not touched.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            _: ::core::ffi::c_int,
            _: *const *const ::core::ffi::c_char,
        ) -> ::core::ffi::c_int {
            $crate::begin_short_lived();
            let status: ::std::process::ExitCode = $main();
            $crate::end_short_lived();
            ::core::ffi::c_int::from(status != ::std::process::ExitCode::SUCCESS)
        }
    };
}

/// Does what the standard library does before `main` and a program cannot do without: a closed
/// standard stream becomes /dev/null, so that no other file gets its number, and writing to a pipe
/// that nobody reads is an error rather than the end.
pub fn begin_short_lived() {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for stream in streams {
        if rustix::io::fcntl_getfd(stream) == Err(rustix::io::Errno::BADF) {
            let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
            // It has the lowest free number, which is the stream's, and stays open.
            let _ = null.map(std::os::fd::IntoRawFd::into_raw_fd);
        }
    }
    // SAFETY: to ignore a signal runs no code of ours in a handler.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Does what the standard library does after `main`: what was printed and is not written yet is.
pub fn end_short_lived() {
    // Where it cannot be written there is nobody to tell.
    let _ = std::io::Write::flush(&mut std::io::stdout());
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn blocks_are_aligned_do_not_overlap_and_the_last_grows_where_it_is() {
        let allocator = Box::new(ShortLivedAllocator::new());
        // SAFETY: every layout has a size, and every block is used as long as it is.
        unsafe {
            let one = allocator.alloc(layout(3, 1));
            let two = allocator.alloc(layout(64, 64));
            assert_eq!(two.addr() % 64, 0);
            assert!(two.addr() >= one.addr() + 3);
            two.write_bytes(7, 64);
            let grown = allocator.realloc(two, layout(64, 64), 128);
            assert_eq!(grown, two);
            let moved = allocator.realloc(one, layout(3, 1), 5);
            assert!(moved.addr() >= grown.addr() + 128);
            assert_eq!(grown.read(), 7);
            allocator.dealloc(moved, layout(5, 1));
            assert_eq!(allocator.alloc(layout(5, 1)), moved, "the last is used again");
        }
    }

    #[test]
    fn what_does_not_fit_is_the_systems() {
        let allocator = Box::new(ShortLivedAllocator::new());
        // SAFETY: as above.
        unsafe {
            let large = allocator.alloc(layout(PIECE + 1, 8));
            assert!(allocator.position(large).is_none() && !large.is_null());
            large.add(PIECE).write(1);
            let small = allocator.alloc(layout(16, 8));
            small.write_bytes(5, 16);
            let out = allocator.realloc(small, layout(16, 8), 2 * PIECE);
            assert!(allocator.position(out).is_none());
            assert_eq!(out.add(15).read(), 5);
            allocator.dealloc(out, layout(2 * PIECE, 8));
            allocator.dealloc(large, layout(PIECE + 1, 8));
        }
    }

    #[test]
    fn threads_get_blocks_of_their_own() {
        let allocator = Box::new(ShortLivedAllocator::new());
        std::thread::scope(|scope| {
            for number in 0..8_u8 {
                let allocator = &allocator;
                scope.spawn(move || {
                    // SAFETY: as above.
                    unsafe {
                        let blocks: Vec<_> = (0..200)
                            .map(|_| {
                                let block = allocator.alloc(layout(24, 8));
                                block.write_bytes(number, 24);
                                block
                            })
                            .collect();
                        for block in blocks {
                            assert!((0..24).all(|at| block.add(at).read() == number));
                            allocator.dealloc(block, layout(24, 8));
                        }
                    }
                });
            }
        });
    }
}
