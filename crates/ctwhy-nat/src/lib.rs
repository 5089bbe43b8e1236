//! ctwhy-nat
