package retry

import (
	"context"

	"github.com/freshet-io/freshet/ufs"
)

var _ ufs.Interceptor = (*FS)(nil)

// Intercept implements ufs.Interceptor: it repeats what may be repeated.
func (f *FS) Intercept(ctx context.Context, c ufs.Call, call func(context.Context) error) error {
	if !c.Repeatable {
		return call(ctx)
	}
	return f.try(ctx, c.Op, call)
}
