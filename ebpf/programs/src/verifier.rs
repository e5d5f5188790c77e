//! Help for the kernel's verifier, which walks every path through a program on its own.
//!
//! It walks through a function once for each state in which it is called, unless the function is global: visible under a
//! name of its own, with arguments that are numbers, the program's context, or pointers to structs. Then it is walked
//! once, for whatever arguments; its caller knows nothing of the number that it returns, nor of what it leaves where the
//! pointers lead. [`alone`] makes such functions. Kernels before 6.2 take no pointer among their arguments for the key or the
//! value of a map.

use aya_ebpf::bindings::{__sk_buff, xdp_md};

use crate::{skb::Skb, xdp_frame::Xdp};

/// Defines a function that the verifier walks through on its own. In brackets is its name in the object, or two, when it is
/// generic over the family; behind the type of the result, what it returns if a pointer is null, which none is.
macro_rules! alone {
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident[$symbol:ident]($($arg:ident: $ty:ty),* $(,)?) -> $result:ty, or $null:expr; $body:block
    ) => {
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name($($arg: $ty),*) -> $result {
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $symbol($($arg: <$ty as $crate::verifier::Argument>::Raw),*) -> $result {
                $(
                    // SAFETY: null, or what the only caller gives: a reference or the program's context.
                    let Some($arg) = (unsafe { <$ty as $crate::verifier::Argument>::taken($arg) }) else {
                        return $null;
                    };
                )*
                $body
            }
            $symbol($($crate::verifier::Argument::given($arg)),*)
        }
    };
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident[$v4:ident, $v6:ident]<$family:ident>(
            $($arg:ident: $ty:ty),* $(,)?
        ) -> $result:ty, or $null:expr; $body:block
    ) => {
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name<$family: $crate::family::Family>($($arg: $ty),*) -> $result {
            #[inline(always)]
            fn body<$family: $crate::family::Family>($($arg: $ty),*) -> $result $body
            if $family::V6 {
                type $family = $crate::family::V6;
                #[unsafe(no_mangle)]
                #[inline(never)]
                extern "C" fn $v6($($arg: <$ty as $crate::verifier::Argument>::Raw),*) -> $result {
                    $(
                        // SAFETY: as above.
                        let Some($arg) = (unsafe { <$ty as $crate::verifier::Argument>::taken($arg) }) else {
                            return $null;
                        };
                    )*
                    body::<$family>($($arg),*)
                }
                // SAFETY: the same types, as the family is this one.
                $v6($(unsafe { $crate::verifier::same($crate::verifier::Argument::given($arg)) }),*)
            } else {
                type $family = $crate::family::V4;
                #[unsafe(no_mangle)]
                #[inline(never)]
                extern "C" fn $v4($($arg: <$ty as $crate::verifier::Argument>::Raw),*) -> $result {
                    $(
                        // SAFETY: as above.
                        let Some($arg) = (unsafe { <$ty as $crate::verifier::Argument>::taken($arg) }) else {
                            return $null;
                        };
                    )*
                    body::<$family>($($arg),*)
                }
                // SAFETY: as above.
                $v4($(unsafe { $crate::verifier::same($crate::verifier::Argument::given($arg)) }),*)
            }
        }
    };
}
pub(crate) use alone;

/// An argument of a function that is verified alone.
pub trait Argument: Sized {
    /// As the verifier takes it.
    type Raw: Copy;
    /// For the call.
    fn given(self) -> Self::Raw;
    /// In the function; nothing when it is null.
    ///
    /// # Safety
    ///
    /// What `given` made, or null.
    unsafe fn taken(raw: Self::Raw) -> Option<Self>;
}

macro_rules! numbers {
    ($($ty:ty),*) => {$(
        impl Argument for $ty {
            type Raw = $ty;
            #[inline(always)]
            fn given(self) -> $ty {
                self
            }
            #[inline(always)]
            unsafe fn taken(raw: $ty) -> Option<$ty> {
                Some(raw)
            }
        }
    )*};
}

numbers!(u32, u64);

impl<T> Argument for &T {
    type Raw = *const T;
    #[inline(always)]
    fn given(self) -> *const T {
        self
    }
    #[inline(always)]
    unsafe fn taken(raw: *const T) -> Option<Self> {
        // SAFETY: the caller's promise.
        unsafe { raw.as_ref() }
    }
}

impl<T> Argument for &mut T {
    type Raw = *mut T;
    #[inline(always)]
    fn given(self) -> *mut T {
        self
    }
    #[inline(always)]
    unsafe fn taken(raw: *mut T) -> Option<Self> {
        // SAFETY: the caller's promise.
        unsafe { raw.as_mut() }
    }
}

impl Argument for Skb {
    type Raw = *mut __sk_buff;
    #[inline(always)]
    fn given(self) -> *mut __sk_buff {
        self.raw()
    }
    #[inline(always)]
    unsafe fn taken(raw: *mut __sk_buff) -> Option<Self> {
        Some(Self::new(raw))
    }
}

impl Argument for Xdp {
    type Raw = *mut xdp_md;
    #[inline(always)]
    fn given(self) -> *mut xdp_md {
        self.raw()
    }
    #[inline(always)]
    unsafe fn taken(raw: *mut xdp_md) -> Option<Self> {
        Some(Self::new(raw))
    }
}

/// A value as one of a type that is the same by another name.
///
/// # Safety
///
/// They are the same.
#[inline(always)]
pub unsafe fn same<A: Copy, B: Copy>(value: A) -> B {
    // SAFETY: the caller's promise.
    unsafe { core::mem::transmute_copy(&value) }
}

/// The same number, of which the verifier knows nothing any more: paths that differ only in it are walked once.
#[inline(always)]
pub fn forget(number: u32) -> u32 {
    #[repr(C, align(8))]
    struct Slot(u32, u32);
    let mut slot = Slot(0, 0);
    // SAFETY: a local variable. Volatile, so that it is in memory, and in the second half of a word, where the verifier
    // does not follow values.
    unsafe {
        core::ptr::write_volatile(&raw mut slot.1, number);
        core::ptr::read_volatile(&raw const slot.1)
    }
}
