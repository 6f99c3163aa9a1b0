//! Properties that hold for every document and text, and the engine held against a naive reference.
