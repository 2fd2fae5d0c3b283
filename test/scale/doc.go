// Package scale holds tests of how memory, disk and starts depend on the number of
// entries: a coordinator's state with its store and its log, of one member, in the
// test's own process. It never measures how fast anything is beyond reporting it.
package scale
