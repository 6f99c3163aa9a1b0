//! The same as the engine, done naively: every place of the text, every keyword.
