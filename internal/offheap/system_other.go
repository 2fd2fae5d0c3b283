//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package offheap

func system() source {
	return source{
		get: func(bytes int) ([]byte, error) { return make([]byte, bytes), nil },
		put: func([]byte) error { return nil },
	}
}
