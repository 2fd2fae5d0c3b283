package coordinator

// SplitMemory divides what a coordinator may take for the namespace between the
// cache of entries, which lies outside of the heap, and the store, whose part lies
// in it. A quarter stays free: the garbage collector lets the heap grow to twice
// what is live.
func SplitMemory(total int64) (entries, store int64) { return total / 2, total / 4 }
