//go:build linux || darwin || freebsd || netbsd || openbsd

package offheap

import "syscall"

func system() source {
	return source{
		get: func(bytes int) ([]byte, error) {
			return syscall.Mmap(-1, 0, bytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		},
		put: syscall.Munmap,
	}
}
