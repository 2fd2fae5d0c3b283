package freshet

import "context"

type opKey struct{}

// WithOp returns a context of a call that changes settings (mounts, sync intervals,
// quotas) under an operation ID: the same ID again is not done twice.
func WithOp(ctx context.Context, op OpID) context.Context {
	if op.IsZero() {
		return ctx
	}
	return context.WithValue(ctx, opKey{}, op)
}

// OpOf returns the ID of WithOp, zero if there is none.
func OpOf(ctx context.Context) OpID {
	op, _ := ctx.Value(opKey{}).(OpID)
	return op
}
