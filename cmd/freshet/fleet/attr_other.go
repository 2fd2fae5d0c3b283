//go:build !linux

package fleet

import "syscall"

// childAttributes keep the terminal's Ctrl-C from a server: we stop it in order.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
