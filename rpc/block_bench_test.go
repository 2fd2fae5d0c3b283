package rpc_test

import (
	"io"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// viewed is a stream of bytes that lie in memory in pieces, as those of a tier do.
type viewed struct {
	stream

	all  []byte
	step int64
}

func (v *viewed) View(n int64) []byte {
	n = min(n, v.step, int64(len(v.all)))
	b := v.all[:n]
	v.all = v.all[n:]
	return b
}

func (v *viewed) Read(p []byte) (int, error) {
	if len(v.all) == 0 {
		return 0, io.EOF
	}
	n := copy(p, v.all)
	v.all = v.all[n:]
	return n, nil
}

func BenchmarkReadBlock(b *testing.B) {
	const size = 64 << 20
	all := content(size)
	for name, step := range map[string]int64{"memory": 256 << 10, "disk": 0} {
		b.Run(name, func(b *testing.B) {
			f := &fake{read: func(freshet.BlockRead) (freshet.BlockStream, error) {
				return &viewed{stream: stream{length: size}, all: all, step: step}, nil
			}}
			node := freshet.Node{GRPC: start(b, f, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage}).addr}
			p := pool(b)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				body, err := p.ReadBlock(b.Context(), node, blockRead(0, size, size))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := body.WriteTo(io.Discard); err != nil || n != size {
					b.Fatal(n, err)
				}
				if err := body.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
