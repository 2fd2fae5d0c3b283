package breaker

import (
	"context"

	"github.com/freshet-io/freshet/ufs"
)

var _ ufs.Interceptor = (*FS)(nil)

// Intercept implements ufs.Interceptor.
func (f *FS) Intercept(ctx context.Context, c ufs.Call, call func(context.Context) error) error {
	done, err := f.begin(ctx, c.Op, c.Key)
	if err != nil {
		return err
	}
	err = call(ctx)
	done(err)
	return err
}
