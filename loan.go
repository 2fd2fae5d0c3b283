package freshet

// BlockLayout says where in a file the bytes of a block are, and how whoever reads
// them there verifies them: one checksum (XXH3, 64 bits) for each chunk, in order.
type BlockLayout struct {
	Offset    int64 // of the block's first byte in the file
	Length    int64 // bytes of the block
	ChunkSize int64 // bytes that one checksum covers; the last chunk may be shorter
	Sums      []uint64
	// Verified has a bit for each chunk that was found right in the file as Stamp
	// has it.
	Verified []uint64
	// Sealed says that nobody can change the bytes any more; then Stamp is empty.
	Sealed bool
	Stamp  FileStamp
}

// FileStamp is what a file system changes when somebody changes a file.
type FileStamp struct {
	Inode               uint64
	Size                int64 // bytes
	ModTime, ChangeTime int64 // nanoseconds of the Unix epoch
}
