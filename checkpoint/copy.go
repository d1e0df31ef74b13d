package checkpoint

import (
	"context"
	"io"
)

// A contextReader fails when its context is done.
type contextReader struct {
	ctx  context.Context
	from io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.from.Read(p)
}

// copyContext is [io.Copy] until ctx is done: it returns the cause then.
func copyContext(ctx context.Context, to io.Writer, from io.Reader) (int64, error) {
	return io.Copy(to, &contextReader{ctx, from})
}
