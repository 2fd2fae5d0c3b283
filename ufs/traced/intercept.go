package traced

import (
	"context"

	"github.com/freshet-io/freshet/ufs"
)

var _ ufs.Interceptor = (*FS)(nil)

// Intercept implements ufs.Interceptor.
func (f *FS) Intercept(ctx context.Context, c ufs.Call, call func(context.Context) error) error {
	ctx, span := f.start(ctx, c.Op, c.Key)
	err := call(ctx)
	end(span, err)
	return err
}
