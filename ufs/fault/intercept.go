package fault

import (
	"context"

	"github.com/freshet-io/freshet/ufs"
)

var _ ufs.Interceptor = (*FS)(nil)

// Intercept implements ufs.Interceptor. Rules name the calls of optional interfaces
// by their ufs.Call.Op; Late is not for them.
func (f *FS) Intercept(ctx context.Context, c ufs.Call, call func(context.Context) error) error {
	return f.do(ctx, Op(c.Op), c.Key, call)
}
