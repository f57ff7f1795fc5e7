//! [`Memory`]: what tasks that are gone leave to those to come.
//!
//! Most loops make and end tasks of a few sizes all the time, and a general allocator, which forgets as soon as it can what it
//! was asked for, takes longer for that than all the rest of a short task.

use std::alloc::{self, Layout};
use std::cell::Cell;
use std::ptr::NonNull;

/// What separates one size from the next.
const STEP: usize = 32;
/// What the system's allocator writes beside each block: sizes that leave room for it waste none.
const OVERHEAD: usize = 8;
/// How many sizes there are: the largest block has nearly 1 KiB.
const SIZES: usize = 32;
const ALIGN: usize = align_of::<usize>();
/// How many blocks of a size are kept.
const KEPT: u32 = 1024;

/// The layout of memory for `T`: one that is kept, if `T` is small enough.
pub(super) const fn layout<T>() -> Layout {
    let exact = Layout::new::<T>();
    let size = (exact.size() + OVERHEAD).next_multiple_of(STEP) - OVERHEAD;
    match Layout::from_size_align(size, ALIGN) {
        Ok(layout) if exact.align() <= ALIGN && size < SIZES * STEP => layout,
        _ => exact,
    }
}

/// The memory that one loop keeps, in its thread.
#[derive(Default)]
pub(in crate::asyncio) struct Memory([Shelf; SIZES]);

/// Blocks of one size.
#[derive(Default)]
struct Shelf {
    first: Cell<Option<NonNull<Block>>>,
    count: Cell<u32>,
}

/// A block that nobody uses.
struct Block {
    next: Option<NonNull<Block>>,
}

impl Memory {
    /// Where blocks of a layout are kept, if they are.
    #[inline]
    fn shelf(&self, layout: Layout) -> Option<&Shelf> {
        let whole = layout.size() + OVERHEAD;
        let kept = whole.is_multiple_of(STEP) && layout.align() == ALIGN;
        self.0.get(whole / STEP).filter(|_| kept)
    }

    #[inline]
    pub(super) fn allocate(&self, layout: Layout) -> NonNull<u8> {
        if let Some(shelf) = self.shelf(layout)
            && let Some(block) = shelf.first.get()
        {
            // SAFETY: `give_back` made a `Block` there, which nobody uses.
            shelf.first.set(unsafe { block.as_ref() }.next);
            shelf.count.set(shelf.count.get() - 1);
            return block.cast();
        }
        // SAFETY: a task is never empty.
        let memory = unsafe { alloc::alloc(layout) };
        NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout))
    }

    /// # Safety
    /// The memory was allocated with this layout, here or by another loop, and nobody uses it.
    #[inline]
    pub(super) unsafe fn give_back(&self, memory: NonNull<u8>, layout: Layout) {
        match self.shelf(layout) {
            Some(shelf) if shelf.count.get() < KEPT => {
                let block = memory.cast();
                let next = shelf.first.replace(Some(block));
                // SAFETY: nobody uses the memory, which is large enough and aligned.
                unsafe { block.write(Block { next }) };
                shelf.count.set(shelf.count.get() + 1);
            }
            // SAFETY: the contract.
            _ => unsafe { alloc::dealloc(memory.as_ptr(), layout) },
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for (number, shelf) in self.0.iter().enumerate() {
            while let Some(block) = shelf.first.get() {
                // SAFETY: as in `allocate`, and then that memory is given back as `layout` says: all blocks of a shelf are
                // of this size, and alignment.
                unsafe {
                    shelf.first.set(block.as_ref().next);
                    let size = number * STEP - OVERHEAD;
                    let layout = Layout::from_size_align_unchecked(size, ALIGN);
                    alloc::dealloc(block.as_ptr().cast(), layout);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_for_what_has_the_same_size_nearly() {
        let memory = Memory::default();
        let [small, same, large] = [
            layout::<[u64; 14]>(),
            layout::<[u64; 15]>(),
            layout::<[u64; 20]>(),
        ];
        assert_eq!((small, small.size()), (same, 120));
        let first = memory.allocate(small);
        // SAFETY: allocated here, and not used any more.
        unsafe { memory.give_back(first, small) };
        let other = memory.allocate(large);
        assert_ne!(other, first);
        assert_eq!(memory.allocate(same), first);
        for (block, layout) in [(other, large), (first, same)] {
            // SAFETY: as above.
            unsafe { memory.give_back(block, layout) };
        }
    }

    #[test]
    fn what_is_large_or_strictly_aligned_goes_back_at_once() {
        #[repr(align(64))]
        struct Aligned(#[expect(dead_code, reason = "only measured")] [u8; 120]);
        let memory = Memory::default();
        for layout in [layout::<[u64; 200]>(), layout::<Aligned>()] {
            let block = memory.allocate(layout);
            assert!(block.addr().get().is_multiple_of(layout.align()));
            // SAFETY: allocated here, and not used any more.
            unsafe { memory.give_back(block, layout) };
            assert!(memory.0.iter().all(|shelf| shelf.first.get().is_none()));
        }
    }
}
