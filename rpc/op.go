package rpc

import "github.com/freshet-io/freshet"

// NewOpID returns the text of a new operation ID, for calls that are made without a
// Coordinator: a repetition by the connection is then not done twice.
func NewOpID() string { return newOp(freshet.OpID{}).String() }
