//! The attributes of ropewalk. Use them through the crate `ropewalk`, which documents them.

use proc_macro::TokenStream;

mod main_function;
mod remote;

#[allow(missing_docs)]
#[proc_macro_attribute]
pub fn remote(attribute: TokenStream, item: TokenStream) -> TokenStream {
    remote::expand(attribute.into(), item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

#[allow(missing_docs)]
#[proc_macro_attribute]
pub fn main(attribute: TokenStream, item: TokenStream) -> TokenStream {
    main_function::expand(attribute.into(), item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
