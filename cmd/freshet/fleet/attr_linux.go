package fleet

import "syscall"

// childAttributes make a server die with us, and keep the terminal's Ctrl-C from
// it: we stop it in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
