package child

import (
	"os/exec"
	"syscall"
)

// setDeathSignal has the kernel kill the child when its parent thread ends, for
// parents that are killed themselves.
func setDeathSignal(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
