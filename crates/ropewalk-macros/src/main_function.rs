//! `#[main] async fn main()` becomes a `main` that runs its body on an event loop.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, Result};

pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !attribute.is_empty() {
        return Err(Error::new_spanned(attribute, "`main` takes no arguments"));
    }
    let mut function: ItemFn = syn::parse2(item)?;
    if function.sig.asyncness.take().is_none() {
        return Err(Error::new_spanned(&function.sig, "the function must be async"));
    }
    if !function.sig.inputs.is_empty() {
        return Err(Error::new_spanned(
            &function.sig.inputs,
            "the function cannot have arguments",
        ));
    }
    let (attributes, visibility, signature, body) =
        (&function.attrs, &function.vis, &function.sig, &function.block);
    Ok(quote! {
        #(#attributes)*
        #visibility #signature {
            ::ropewalk::asyncio::run(async #body)
        }
    })
}
