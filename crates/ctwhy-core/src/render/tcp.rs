//! Steps and refusals of the TCP tracker in words.
