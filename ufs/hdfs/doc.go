// Package hdfs owns the under file system on HDFS: the files below one directory
// of a NameNode, or of several that stand in for each other. It never caches, and
// never shows a file before all of it is written.
//
// A write goes to a temporary file in the lowest directory above its target that is
// there, which gets its name by one rename. A read is of an inode, not of a name, and hands out no byte before it was
// checked against the checksum of HDFS and the inode was seen to be unchanged after
// it. A fingerprint is inode number, length and modification time in milliseconds:
// it misses only a change that keeps the inode and the length and ends in the same
// millisecond, or sets the time back.
//
// A file that another program is still writing is visible, as HDFS shows it: with
// the length of its complete blocks, often 0, and the time of its creation. Its
// fingerprint changes when it is closed. An append shows only when it is closed, too.
//
// The client library under this driver is pinned and has no successor. What it
// lacks is added here: contexts (the connections of a call are closed when its
// context ends), deadlines, a pool (it does one call at a time), calls that it has
// no method for, and a guard against its handing out bytes that failed their
// checksum.
//
// Not tested, for want of a test server: Kerberos, encrypted data transfer, several
// NameNodes, and DataNodes that fail while others hold the same block. They work
// as far as the library does. HDFS encryption zones are not supported.
package hdfs
