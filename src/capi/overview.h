/**
 * DOC: vfio-display
 *
 * Shows the screen of a virtual GPU: takes the planes of a vfio device to the
 * console of an emulator. A host provides two tables of callbacks, one for the
 * device and one for its console, and says when to refresh:
 *
 *     int mode = vfio_dpy_probe(&device_ops, device, &error);
 *     VfioDpy *dpy = vfio_dpy_new(mode, &device_ops, device, "gpu0",
 *                                 &console_ops, console, NULL, &error);
 *     vfio_dpy_refresh(dpy, true);    (again and again)
 *     vfio_dpy_free(dpy);
 *
 * examples/screenshot.c is a complete program. Rules for all functions:
 *
 * Errors: a function that fails returns NULL, false, or a negative errno, and
 * does not write to its output parameters. On failure, *@error, if given, is a
 * message to be freed with g_free(); otherwise it is NULL.
 *
 * Versions: a struct that the host fills in and that may grow begins with its
 * size. A host compiled with an older header has a smaller one: what it lacks
 * counts as NULL or zero. What the library does not know of a larger one is
 * ignored.
 *
 * Threads: "Context" says who may call a function. The display's thread is the
 * one that runs the GLib default main context, or whoever holds the lock that
 * protects it, such as QEMU's big lock.
 *
 * Memory: pointers must be valid, and not NULL unless stated. What is returned
 * to the caller says how it is freed; everything else is borrowed for the call.
 */
