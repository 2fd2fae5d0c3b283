package local

// KindOf classifies an error of the system.
var KindOf = kindOf
