package rpc

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
)

// How the ports of data are set, by measurement (docs/performance.md): larger writes
// save system calls until they no longer fit the cache; a window of one or two
// chunks keeps both sides busy, and what is on its way in the cache. A fixed one also
// bounds what a reader, or a node, holds of each stream.
const (
	dataWriteBuffer = 128 << 10
	dataWindow      = 2 << 20
)

// dataServer returns the options of a server of data. Its buffers are not cleared
// before they are used again, which the library's are: all of what is sent of one was
// written before.
func dataServer() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.WriteBufferSize(dataWriteBuffer), experimental.BufferPool(new(room)),
		grpc.StaticStreamWindowSize(dataWindow), grpc.StaticConnWindowSize(dataWindow),
	}
}

// dataClient returns the same of a connection to one.
func dataClient() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithWriteBufferSize(dataWriteBuffer), experimental.WithBufferPool(new(room)),
		grpc.WithStaticStreamWindowSize(dataWindow), grpc.WithStaticConnWindowSize(dataWindow),
	}
}
