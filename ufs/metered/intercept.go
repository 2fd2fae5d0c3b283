package metered

import (
	"context"

	"github.com/freshet-io/freshet/ufs"
)

var _ ufs.Interceptor = (*FS)(nil)

// Intercept implements ufs.Interceptor.
func (f *FS) Intercept(ctx context.Context, c ufs.Call, call func(context.Context) error) error {
	start := f.begin()
	err := call(ctx)
	f.done(c.Op, start, err)
	return err
}
