//! `#[remote] fn cube(n: i64) -> i64` becomes a static of that name, which can be called as the function that it was
//! and sent to a process pool.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, FnArg, ItemFn, Result, ReturnType};

pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !attribute.is_empty() {
        return Err(Error::new_spanned(attribute, "`remote` takes no arguments"));
    }
    let function: ItemFn = syn::parse2(item)?;
    let signature = &function.sig;
    let refuse = |what: &dyn quote::ToTokens, why: &str| Err(Error::new_spanned(what, why));
    if let Some(token) = &signature.asyncness {
        return refuse(
            token,
            "a remote function cannot be async: it runs in a process without a loop",
        );
    }
    if let syn::Safety::Unsafe(token) = &signature.safety {
        return refuse(
            token,
            "a remote function cannot be unsafe: nobody at the other end could keep its promises",
        );
    }
    if !signature.generics.params.is_empty() {
        return refuse(
            &signature.generics,
            "a remote function cannot be generic: it must be one function in both processes",
        );
    }
    let mut types = Vec::new();
    for argument in &signature.inputs {
        match argument {
            FnArg::Typed(argument) => types.push(&argument.ty),
            FnArg::Receiver(receiver) => {
                return refuse(
                    receiver,
                    "a remote function cannot be a method: take `self` as an argument",
                );
            }
        }
    }
    let output = match &signature.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => quote!(#ty),
    };
    let (attributes, visibility, name) = (&function.attrs, &function.vis, &signature.ident);
    let arguments: Vec<_> = (0..types.len())
        .map(|index| format_ident!("argument_{index}"))
        .collect();
    let mut inner = function.clone();
    inner.attrs.clear();
    inner.vis = syn::Visibility::Inherited;
    Ok(quote! {
        #(#attributes)*
        #[allow(non_upper_case_globals)]
        #visibility static #name: ::ropewalk::futures::process_pool::Remote<fn(#(#types),*) -> #output> = {
            #inner
            fn run(arguments: &[u8]) -> ::ropewalk::futures::process_pool::Answer {
                ::ropewalk::futures::process_pool::Answer::of(
                    arguments,
                    |(#(#arguments,)*): (#(#types,)*)| -> #output { #name(#(#arguments),*) },
                )
            }
            ::ropewalk::futures::process_pool::Remote::new(#name, run)
        };
    })
}
