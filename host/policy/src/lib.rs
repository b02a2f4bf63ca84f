//! What an extension may do.
