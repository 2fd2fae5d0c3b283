package local

// KindOf classifies an error of the system.
var KindOf = kindOf

// WatchError says what to do about an error of inotify.
var WatchError = watchError
